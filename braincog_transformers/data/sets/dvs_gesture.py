"""DVS128 Gesture: which stretches of which trials are samples.

The official folder holds one AEDAT 3.1 recording per trial, a table `<trial>_labels.csv` of class (1 to 11), start and
end in microseconds, and the names of the trials of either split: 1176 and 288 samples, since the class "arm roll" comes
twice in a trial. tonic's folders hold one .npy file per trial and class, so that the second is lost: 1077 and 264.
"""

from pathlib import Path
from typing import Any

from ..formats.text import read_lines, read_table
from ..loading.fetching import ByTonic
from ..loading.folders import MissingData, unpaired
from ..registry import EventSet, register_dataset
from ..settings import Split

CLASSES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter-clockwise",
    "left arm clockwise", "left arm counter-clockwise", "arm roll", "air drums", "air guitar", "other",
)  # fmt: skip

_LISTS = ("trials_to_train.txt", "trials_to_test.txt")
_TONIC_FOLDERS = ("ibmGestureTrain", "ibmGestureTest")


def _sides(root: Path, info: EventSet, split: Split) -> list[tuple[list, list[int]]]:
    """Return recordings and labels (0 to 10) of training and test: trials in the order of their list, then by time.

    Args:
        root: folder of the official files, or of tonic's two folders.

    Raises:
        UserError: for a listed file that is missing, a table that can't be read, or a split without samples.
    """
    official = (root / _LISTS[0]).is_file()
    names, samples_of = (_LISTS, _gestures) if official else (_TONIC_FOLDERS, _cut)
    sides = [samples_of(root, name) for name in names]
    for name, samples in zip(names, sides, strict=True):
        if not samples:
            raise MissingData(f"{root / name}: names no recordings of dvsg; fetch the data set anew")
    return [unpaired(samples) for samples in sides]


def _gestures(root: Path, name: str) -> list[tuple[Any, int]]:
    from ..readers import Segment

    trials = [root / line.strip() for line in read_lines(root / name) if line]
    trials = [(trial, trial.with_name(f"{trial.stem}_labels.csv")) for trial in trials]
    needed = [path for pair in trials for path in pair]
    if missing := [path.name for path in needed if not path.is_file()]:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        count = f"{len(missing)} of {len(needed)} files that {name} asks for are missing"
        raise MissingData(f"{root}: {count} ({shown}); unpack DvsGesture.tar.gz anew")
    return [
        (Segment(trial, start, end), label - 1)
        for trial, table in trials
        for label, start, end in read_table(table, f"class 1 to {len(CLASSES)}", range(1, len(CLASSES) + 1))
    ]


def _cut(root: Path, name: str) -> list[tuple[Any, int]]:
    """Return tonic's files `userNN_light/<label>.npy`, sorted by trial and label."""
    names = {f"{label}.npy": label for label in range(len(CLASSES))}
    found = [(path, names[path.name.lower()]) for path in (root / name).glob("*/*") if path.name.lower() in names]
    return sorted(found, key=lambda sample: (sample[0].parent.name, sample[1], sample[0]))


register_dataset(
    EventSet(
        name="dvsg", num_classes=11, size=(128, 128), classes=CLASSES, samples=(1176, 288), editions=((1077, 264),),
        tree="DvsGesture/{trials_to_train.txt,trials_to_test.txt,<trial>.aedat,<trial>_labels.csv} (or tonic's "
        "DVSGesture/ibmGesture{Train,Test}/<trial>/<0..10>.npy)",
        note="`--download` fetches tonic's: 1077 and 264 samples, not 1176 and 288",
        source="unpack DvsGesture.tar.gz of research.ibm.com/dvsgesture",
        citation="Amir et al., A Low Power, Fully Event-Based Gesture Recognition System (CVPR 2017)",
        fetch=ByTonic("DVSGesture", {"train": True}, {"train": False}),
        folders=(
            "DvsGesture", "dvsg", "DVSGesture", "DVS128Gesture", "DVS128Gesture/extract/DvsGesture",
            "DVS/DVSGesture/DVSGesture", ".",
        ),
        marks=("trials_to_train.txt", "ibmGestureTrain"), endings=(".aedat", ".npy"), sides=_sides,
        text_order=tuple(sorted(range(11), key=str)),
    )
)  # fmt: skip
