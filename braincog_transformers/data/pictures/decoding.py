"""Open photos: only in formats of photos, up to a number of pixels, as 8 bits; anything else is refused in one line.

Of an animation or a file with several pages the first picture is read, and a note that the picture is to be rotated
(EXIF) is ignored, as in timm and torchvision.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...errors import UserError
from ...files import reason
from ..settings import MOST_PIXELS

__all__ = ["MOST_PIXELS", "SUFFIXES", "decoded", "is_photo", "photos_only"]

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
"""Of files that are read as photos, in small letters."""

# By content, whatever a file is called: some of ImageNet's .JPEG are PNG. Pillow knows others that start programs.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
# Of 16 bits from 0 to 65535: PNG in older versions of Pillow, and PGM in all.
_WHOLE = ("PNG", "PPM")
# Tags of a TIFF, and what the last says of ordinary numbers; a photometric of 1 has black at 0.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _UNSIGNED = 258, 262, 339, 1

_open, _opening = Image.open, threading.Lock()


def is_photo(name: str) -> bool:
    """Say whether a file of that name is read as a photo."""
    return Path(name).suffix.lower() in SUFFIXES


def decoded(
    file: str | Path | BinaryIO, name: str, max_pixels: int = MOST_PIXELS, mode: str | None = "RGB"
) -> Image.Image:
    """Return a photo of 8 bits.

    Args:
        file: path, or an open file.
        name: of the photo in messages.
        max_pixels: of a photo; a larger one is refused before it is decoded.
        mode: Pillow's name of the colours that it gets; None leaves it its own, such as the numbers of a palette.

    Raises:
        UserError: for what is not a complete picture, too large, or has values of an unknown range.
    """
    return _decode(file, name, max_pixels, mode)


@contextmanager
def photos_only(name: str, max_pixels: int = MOST_PIXELS) -> Iterator[None]:
    """Let Pillow open nothing but photos, as `decoded` does, while code of other packages opens them.

    Args:
        name: in messages, of a photo that doesn't come from a file.
        max_pixels: see `decoded`.
    """

    def guarded(fp: Any, mode: str = "r", formats: Any = None) -> Image.Image:
        path = fp if isinstance(fp, (str, Path)) else getattr(fp, "name", None)
        return _decode(fp, str(path) if isinstance(path, (str, Path)) else name, max_pixels)

    kept, Image.open = Image.open, guarded
    try:
        yield
    finally:
        Image.open = kept


def _decode(file: Any, name: str, max_pixels: int, mode: str | None = None) -> Image.Image:
    """Return a photo of 8 bits, in its own colours or in those of a mode."""
    try:
        picture = _opened(file)
        if (problem := _unfit(picture, max_pixels)) is None:
            picture.load()
            picture = _in_8_bits(picture)
            return picture if mode is None else picture.convert(mode)
    except UnidentifiedImageError:
        known = ", ".join(_FORMATS)
        raise UserError(f"{name}: not a complete picture (none of {known}); fetch it anew or convert it") from None
    except Exception as error:
        # Pillow's readers pass on whatever the bytes of a damaged file make them raise.
        raise UserError(f"{name}: not a complete picture ({reason(error)}); fetch it anew") from None
    raise UserError(f"{name}: {problem}")


def _opened(file: Any) -> Image.Image:
    """Read the head of a picture, whatever its size, which the caller compares with a limit of its own."""
    with _opening:
        kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return _open(file, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = kept


def _unfit(picture: Image.Image, max_pixels: int) -> str | None:
    """Say why a picture is not to be decoded, and what to do; None for one that is."""
    wide, high = picture.size
    if wide * high > max_pixels:
        return f"{wide} x {high} pixels, more than {max_pixels:,}; make it smaller, or raise --max-pixels"
    tags = getattr(picture, "tag_v2", {}) if picture.format == "TIFF" else {}
    signed = any(kind != _UNSIGNED for kind in _numbers(tags.get(_SAMPLE_FORMAT)))
    grey = picture.mode == "I" or picture.mode.startswith("I;16")
    other_range = grey and tags and (_numbers(tags.get(_BITS)), _numbers(tags.get(_PHOTOMETRIC))) != ((16,), (1,))
    if picture.mode == "F" or signed or other_range or (picture.mode == "I" and picture.format not in _WHOLE):
        return (
            f"its values (mode {picture.mode}) are no numbers of 8 or 16 bits from black to white; save it with those"
        )
    return None


def _numbers(value: Any) -> tuple[int, ...]:
    """Return the value of a TIFF tag, which is absent, one number or several."""
    return () if value is None else tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _in_8_bits(picture: Image.Image) -> Image.Image:
    """Return a grey picture of 16 bits with 8, by the upper byte, as Pillow itself does with colours of 16 bits."""
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture)
    grey = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    grey.info, grey.format = picture.info, picture.format
    return grey
