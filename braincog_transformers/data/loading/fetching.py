"""Downloads through tonic, for sets whose official files it fetches; only when the user asks for them."""

import contextlib
import io
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import reason
from ..registry import DatasetInfo
from ..settings import Access
from .folders import MissingData, find_root

__all__ = ["ByTonic", "fetched_root"]


class ByTonic:
    """Let tonic fetch a set.

    Args:
        name: of tonic's class.
        parts: arguments of each of the calls that fetch the set.
    """

    def __init__(self, name: str, *parts: dict[str, Any]) -> None:
        self.name, self.parts = name, parts

    def __call__(self, info: DatasetInfo, data_dir: Path) -> None:
        import tonic.datasets

        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                for arguments in self.parts:
                    getattr(tonic.datasets, self.name)(str(data_dir), **arguments)
        except Exception as error:
            # tonic passes on whatever the network, the archive or HDF5 raise.
            remedy = f"check the network, or {info.source}"
            raise UserError(f"data set {info.name} can't be fetched ({reason(error)}); {remedy}") from None


def fetched_root(info: DatasetInfo, data_dir: Path, access: Access) -> Path:
    """Return the folder of a set, after it was fetched where that is wanted and possible, and it was not there.

    Raises:
        UserError: when it is missing, or can't be fetched.
    """
    if access.download and info.fetch:
        with contextlib.suppress(MissingData):
            return find_root(info, data_dir)
        info.fetch(info, data_dir)
    return find_root(info, data_dir)
