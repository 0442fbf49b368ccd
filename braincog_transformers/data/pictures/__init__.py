"""Pictures: photos in files, folders, tars and other sources, and their augmentation."""

from .decoding import decoded

__all__ = ["decoded"]
