"""Bullying10K: violent and everyday actions.

Every fifth clip tests, from the first on, counted over all clips sorted by folder and name: the rule of its authors,
whose order is that of their disk.
"""

from pathlib import Path

from ...errors import UserError
from ..loading.folders import MissingData, unpaired, visible
from ..registry import EventSet, register_dataset
from ..settings import Split

CLASSES = (
    "handshake", "slapping", "punching", "walking", "fingerguess", "strangling", "greeting", "pushing", "hairgrabs",
    "kicking",
)  # fmt: skip
_TEST_EVERY = 5


def _sides(root: Path, info: EventSet, split: Split) -> list[tuple[list, list[int]]]:
    from ..events.recordings import Pickled
    samples, missing, kinds = [], [], set()
    for name in sorted(info.classes):
        clips = [path for path in visible(root / name, "**/*") if path.suffix.lower() in info.endings]
        kinds |= {path.suffix.lower() for path in clips}
        missing += [] if clips else [name]
        label = info.classes.index(name)
        samples += [(Pickled(path) if path.suffix.lower() == ".npy" else path, label) for path in clips]
    if missing:
        shown = ", ".join(missing)
        raise MissingData(f"{root}: no recordings of {len(missing)} of {len(info.classes)} classes ({shown}); add them")
    if len(kinds) > 1:
        raise UserError(f"{root}: holds recordings in {' and '.join(sorted(kinds))}; keep one of the two there")
    chosen = range(0, len(samples), _TEST_EVERY)
    return [
        unpaired([sample for place, sample in enumerate(samples) if place not in chosen]),
        unpaired([samples[place] for place in chosen]),
    ]


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
