"""Downloads through tonic, of the sets whose official files it fetches; none starts unasked."""

import contextlib
import io
from pathlib import Path

from ..errors import UserError
from .catalog import DatasetInfo
from .places import MissingData, find_root

__all__ = ["fetch"]

_CALLS = {
    "shd": ("SHD", ({"train": True}, {"train": False})),
    "ssc": ("SSC", ({"split": "train"}, {"split": "valid"}, {"split": "test"})),
    "ncaltech101": ("NCALTECH101", ({},)),
    "nmnist": ("NMNIST", ({"train": True}, {"train": False})),
    "dvsc10": ("CIFAR10DVS", ({},)),
    "dvsg": ("DVSGesture", ({"train": True}, {"train": False})),
}
"""Class of tonic's, and the arguments of each of its parts."""


def fetch(info: DatasetInfo, data_dir: Path) -> None:
    """Let tonic fetch a set, unless it is there already.

    Raises:
        UserError: when it can't be fetched.
    """
    with contextlib.suppress(MissingData):
        find_root(info, data_dir)
        return
    import tonic.datasets

    name, parts = _CALLS[info.name]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for arguments in parts:
                getattr(tonic.datasets, name)(str(data_dir), **arguments)
    except Exception as error:
        # tonic passes on whatever the network, the archive or HDF5 raise.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        remedy = f"check the network, or {info.source}"
        raise UserError(f"data set {info.name} can't be fetched ({reason}); {remedy}") from None
