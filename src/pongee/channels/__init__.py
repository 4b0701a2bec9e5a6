"""Channels: what a channel is, apart from who carries it."""
