"""The dashboard: the labs as web pages, served on this machine."""

from widgets.app.main import serve

__all__ = ["serve"]
