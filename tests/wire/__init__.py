"""The wire: frames, timers, and the protocol on a real uvicorn."""
