"""Pictures: photos in files, folders, tars and other sources, and what varies them."""

from .decoding import decoded

__all__ = ["decoded"]
