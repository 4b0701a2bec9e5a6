"""Links: one accepted WebSocket as the rest of the package sees it."""
