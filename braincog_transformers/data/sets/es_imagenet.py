"""ES-ImageNet: ImageNet's pictures, turned into events of eight steps; two lists say which sample belongs where."""

import re
from pathlib import Path

from ...errors import UserError, shown
from ..formats.text import read_lines
from ..loading.folders import unpaired
from ..registry import EventSet, register_dataset
from ..settings import Split

_WHOLE = re.compile(r"[0-9]{1,5}")


def _sides(root: Path, info: EventSet, split: Split) -> list[tuple[list, list[int]]]:
    return [_listed(root, part, info.num_classes) for part in ("train", "val")]


def _listed(root: Path, part: str, classes: int) -> tuple[list, list[int]]:
    from ..events.recordings import GivenSteps

    path, folder, samples = root / f"{part}label.txt", root / part, []
    for line in filter(None, read_lines(path)):
        name, *numbers = line.split()
        if len(numbers) != 3 or not all(map(_WHOLE.fullmatch, numbers)):
            wanted = "lines of file, class, rows and columns"
            raise UserError(f"{path}: needs {wanted}; got {shown(line, 60)!r}, fetch it anew")
        label, tall, wide = map(int, numbers)
        samples.append((GivenSteps(folder / f"{Path(name).stem}.npz", tall, wide), label))
    if not samples or any(label >= classes for _, label in samples):
        raise UserError(f"{path}: needs at least one line, and classes from 0 to {classes - 1}; fetch it anew")
    return unpaired(samples)


register_dataset(
    EventSet(
        name="esimnet", num_classes=1000, size=(224, 224), samples=(1257035, 49881),
        tree="ES-imagenet-0.18/{train,val}/*.npz and ES-imagenet-0.18/{trainlabel,vallabel}.txt",
        note="`--step` 8, 4, 2 or 1; needs `--no-cache`, unless there is a terabyte for the frames",
        source="unpack the 25 parts of ES-imagenet-0.18 at cloud.tsinghua.edu.cn/d/94873ab4ec2a4eb497b3",
        citation="Lin et al., ES-ImageNet: A Million Event-Stream Classification Dataset for Spiking Neural Networks "
        "(Frontiers in Neuroscience 2021)",
        folders=("ES-imagenet-0.18", "esimnet", "ESimagenet", "DVS/ES-imagenet-0.18", "."), marks=("trainlabel.txt",),
        endings=(".npz",), sides=_sides, given_steps=8,
    )
)  # fmt: skip
