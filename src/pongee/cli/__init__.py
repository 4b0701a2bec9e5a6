"""The command line: ``pongee serve`` and ``pongee token``."""

from pongee.cli.main import main

__all__ = ["main"]
