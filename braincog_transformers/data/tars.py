"""Photos inside tar files: a tar of class folders, a folder of tars (one for each class), or a tar of such tars."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from .pictures import decoded

__all__ = ["TarPictures", "read_tars"]


class TarPictures:
    """Photos at known places of uncompressed tar files.

    A file is opened for each photo: no handle is kept whose position worker processes would share.

    Args:
        files: the tar files.
        file: (N,) which of them holds the photo.
        start: (N,) its first byte there.
        size: (N,) its number of bytes.
        names: of the photos inside.
        targets: labels.
    """

    def __init__(
        self,
        files: Sequence[Path],
        file: np.ndarray,
        start: np.ndarray,
        size: np.ndarray,
        *,
        names: Sequence[str],
        targets: Sequence[int],
    ) -> None:
        self.files, self.names, self.targets = list(files), list(names), list(targets)
        self.file, self.start, self.size = file, start, size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image.Image:
        path = self.files[self.file[index]]
        try:
            with path.open("rb") as stored:
                stored.seek(self.start[index])
                content = io.BytesIO(stored.read(self.size[index]))
        except OSError as error:
            raise UserError(f"{path}: can't be read ({error.strerror or error})") from None
        return decoded(content, f"{path}: {self.names[index]}")


def read_tars(root: Path) -> tuple[TarPictures, dict[str, int]]:
    """List the photos of a tar file, or of all tar files in a folder, with timm's reader.

    Args:
        root: a .tar file, or a folder that holds such files; a photo's class is the name of its folder inside, or that
            of its tar.

    Returns:
        The photos, and the labels by class; classes are numbered in their natural order.

    Raises:
        UserError: for a file that is no tar, is cut short, or holds no photos.
    """
    import tarfile

    from timm.data.readers.reader_image_in_tar import ReaderImageInTar

    try:
        reader = ReaderImageInTar(str(root))
    except (tarfile.TarError, OSError, EOFError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120] or "it holds no photos"
        raise UserError(f"{root}: not a complete tar file of photos ({reason}); fetch it anew") from None
    # A tar inside a tar is a plain stretch of bytes: its members begin where it begins.
    places = [(member, outer, (inner.offset_data if inner else 0)) for member, outer, inner in reader.samples]
    outer_names = sorted({outer for _, outer, _ in places if outer})
    numbers = {name: number for number, name in enumerate(outer_names)}
    files = [root / name for name in outer_names] or [root]
    pictures = TarPictures(
        files,
        np.array([numbers.get(outer, 0) for _, outer, _ in places], np.int32),
        np.array([begin + member.offset_data for member, _, begin in places], np.int64),
        np.array([member.size for member, _, _ in places], np.int64),
        names=[member.name for member, _, _ in places],
        targets=[int(target) for target in reader.targets],
    )
    return pictures, reader.class_name_to_idx
