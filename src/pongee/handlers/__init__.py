"""Handlers: a user's functions around one event, with FastAPI's own resolver."""
