"""Hostile and faulty peers against real server processes."""
