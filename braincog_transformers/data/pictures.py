"""Decoding of photos, with one line for what is no photo."""

from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ..errors import UserError

__all__ = ["decoded"]


def decoded(file: str | Path | BinaryIO, name: str) -> Image.Image:
    """Return a photo in RGB.

    Args:
        file: path, or an open file.
        name: of the photo in messages.

    Raises:
        UserError: for what is not a complete picture.
    """
    try:
        return Image.open(file).convert("RGB")
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: not a complete picture ({reason}); fetch it anew") from None
