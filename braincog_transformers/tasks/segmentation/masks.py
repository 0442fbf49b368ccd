"""Masks: a number for each pixel, in a PNG with a palette or of 8-bit greys."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ...data.pictures.decoding import decoded
from ...errors import UserError
from ...files import reason

__all__ = ["VOID", "MaskRule", "mask_picture", "palette"]

VOID = 255
"""Label of pixels that are in neither loss nor figures."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_COLOURS = {2: "RGB", 4: "grey with transparency", 6: "RGB with transparency"}


@dataclass(frozen=True)
class MaskRule:
    """Say what the numbers in a set's masks mean.

    Args:
        num_classes: K.
        first: number of the first class: 0, or 1 where 0 is void. 255 always is.
        max_pixels: of a mask.
    """

    num_classes: int
    first: int
    max_pixels: int

    def read(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        """Return the labels (H, W) as uint8, 0 to K - 1 or `VOID`.

        Args:
            path: of the PNG.
            size: (width, height) of its picture.

        Raises:
            UserError: for a file that is no complete mask of that size, numbers that are no class, or all void.
        """
        self._check_head(path, size)
        # a palette of few colours may take fewer bits than 8; Pillow unpacks those
        numbers = np.asarray(decoded(path, str(path), self.max_pixels, mode=None))
        found = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256))
        last = self.first + self.num_classes - 1
        if (beyond := found[(found > last) & (found < VOID)]).size:
            raise UserError(
                f"{path}: holds the number {beyond[0]}, but classes are {self.first} to {last}, and 255 is void"
                f"{', as is 0' * self.first}; mend the mask, or give --task-kwargs num_classes"
            )
        if not (found[found < VOID] >= self.first).any():
            remedy = "leave the sample out, as --task-kwargs skip_bad=True does"
            raise UserError(f"{path}: all void, so there is nothing to learn or to measure; {remedy}")
        # 0 becomes 255, as numbers of 8 bits go round
        return np.where(numbers == VOID, VOID, numbers - np.uint8(self.first)).astype(np.uint8)

    def numbers(self, labels: np.ndarray) -> np.ndarray:
        """Return labels without void as the numbers of the set's masks, the opposite of `read`."""
        return (labels + self.first).astype(np.uint8)

    def _check_head(self, path: Path, size: tuple[int, int]) -> None:
        """Compare a PNG's head with what a mask has, before anything is decoded."""
        try:
            with path.open("rb") as file:
                head = file.read(29)
        except OSError as error:
            raise UserError(f"{path}: can't be read ({reason(error)}); fetch the mask anew") from None
        if len(head) < 29 or not head.startswith(_SIGNATURE):
            raise UserError(f"{path}: no PNG, which masks are; fetch it anew, or save it as PNG with a palette")
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        bits, colours = head[24], head[25]
        if colours not in (0, 3) or (colours == 0 and bits != 8):
            kind = _COLOURS.get(colours, f"grey of {bits} bits")
            raise UserError(f"{path}: {kind}; a mask holds numbers, with a palette or as grey of 8 bits; save it so")
        if (width, height) != size:
            raise UserError(
                f"{path}: {width} x {height} pixels, and its picture has {size[0]} x {size[1]}; they must be the same"
            )


@cache
def palette() -> np.ndarray:
    """Return VOC's colours (256, 3): the bits of a number, three by three, are the highest bits of its colour."""
    numbers, colours = np.arange(256), np.zeros((256, 3), int)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> (3 * place + channel) & 1) << (7 - place)
    return colours.astype(np.uint8)


def mask_picture(numbers: np.ndarray) -> Image.Image:
    """Return the numbers (H, W) as a picture in VOC's colours, ready to be saved as PNG."""
    picture = Image.fromarray(numbers.astype(np.uint8))
    picture.putpalette(palette().tobytes())
    return picture
