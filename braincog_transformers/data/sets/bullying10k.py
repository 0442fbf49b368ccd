"""Bullying10K: violent and everyday actions.

Every fifth clip is a test sample, starting with the first, over all clips sorted by folder and name: the rule of its
authors, whose order is that of their disk.
"""

from pathlib import Path

from ..loading.folders import class_files, unpaired
from ..registry import EventSet, register_dataset
from ..settings import Split

CLASSES = (
    "handshake", "slapping", "punching", "walking", "fingerguess", "strangling", "greeting", "pushing", "hairgrabs",
    "kicking",
)  # fmt: skip
_TEST_EVERY = 5


def _sides(root: Path, info: EventSet, split: Split) -> list[tuple[list, list[int]]]:
    from ..events.recordings import Pickled

    names = sorted(info.classes)
    samples = [
        (Pickled(path) if path.suffix.lower() == ".npy" else path, info.classes.index(name))
        for name, clips in zip(names, class_files(root, names, info.endings, nested=True), strict=True)
        for path in clips
    ]
    train = [sample for place, sample in enumerate(samples) if place % _TEST_EVERY]
    return [unpaired(train), unpaired(samples[::_TEST_EVERY])]


register_dataset(
    EventSet(
        name="bullying10k", num_classes=10, size=(260, 346), classes=CLASSES, samples=(8000, 2000),
        tree="Bullying10K/<fingerguess..walking>/**/*.npy (or *.aedat4)",
        note="every fifth clip tests; `--label-order text` for BrainCog's order of classes",
        source="unpack the ten class archives of Bullying10K on figshare (arxiv.org/abs/2306.11546)",
        citation="Dong et al., Bullying10K: A Large-Scale Neuromorphic Dataset towards Privacy-Preserving Bullying "
        "Recognition (NeurIPS 2023)",
        folders=("bullying10k", "Bullying10K", "Bullying10k", "DVS/Bullying10k", "."), marks=CLASSES,
        endings=(".npy", ".aedat4"), sides=_sides, text_order=tuple(sorted(range(10), key=CLASSES.__getitem__)),
    )
)  # fmt: skip
