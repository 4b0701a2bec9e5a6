"""Brokers: who keeps channels, carries publications between processes and knows who is there."""
