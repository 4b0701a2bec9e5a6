"""``python -m pongee`` is ``pongee``."""

from pongee.cli import main

main()
