"""Scikit-learn's 1,797 scanned digits: as pictures (`digits`) and as simulated saccade recordings (`ndigits`)."""

from pathlib import Path
from typing import Any

from ..registry import EventSet, PictureSet, register_dataset
from ..settings import CHARACTERS, Access, Colours

CLASSES = tuple("0123456789")
_ABOUT = {
    "num_classes": 10,
    "classes": CLASSES,
    "samples": (1437, 360),
    "folders": (),
    "source": "install scikit-learn, which braincog requires",
    "licence": "CC BY 4.0 (UCI Machine Learning Repository)",
    "citation": "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI Machine Learning Repository 1998)",
}


def _pictures(info: PictureSet, data_dir: Path, access: Access) -> tuple[Any, Any, tuple[str, ...]]:
    import numpy as np

    from ..pictures.digits import digit_pictures
    from ..pictures.stored import ArrayPictures

    halves = (digit_pictures(train=train) for train in (True, False))
    train, test = (ArrayPictures(np.round(pixels * 255).astype(np.uint8), labels) for pixels, labels in halves)
    return train, test, info.classes


def _recordings(cache_dir: Path) -> Path:
    from ..events.saccades import ndigits_folder

    return ndigits_folder(cache_dir)


register_dataset(
    PictureSet(
        name="digits", in_chans=1, size=(8, 8), tree="nothing, it comes with scikit-learn", augment=CHARACTERS,
        colours=Colours(mean=(0.3053,), std=(0.3760,), origin="measured on the training digits"), read=_pictures,
        **_ABOUT,
    )
)  # fmt: skip
register_dataset(
    EventSet(
        name="ndigits", size=(34, 34), tree="nothing, it is simulated from scikit-learn's digits at first use",
        split_folders=("Train", "Test"), endings=(".bin",), simulate=_recordings, **_ABOUT,
    )
)  # fmt: skip
