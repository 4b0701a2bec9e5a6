"""Sessions: plain WebSocket endpoints, typed, owned and guarded."""
