"""Faults on purpose, and a ledger of what arrived all the same: ``python -m tests.faults``."""
