"""The application behind ``pongee serve``: the reference for users, and the product's own demo."""

from pongee.playground.app import create_app

__all__ = ["create_app"]
