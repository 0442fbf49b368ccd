"""Photos from timm's dataset factory: Hugging Face and torchvision sets by index, WebDataset shards as streams.

The names are timm's: `wds/NAME` (shards), `hfds/NAME` and `hfids/NAME` (Hugging Face, on disk or streamed),
`tfds/NAME`, `torch/NAME`.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import UserError, shown
from ...files import reason
from ..formats.text import read_lines
from ..settings import SOURCES, STREAMED
from .decoding import MOST_PIXELS, decoded, photos_only
from .folders import list_folder

__all__ = ["PictureStream", "Source", "SourcePictures"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Name a set and its splits for timm's `create_dataset`.

    Args:
        name: with its prefix, such as `wds/imagenet`.
        root: folder or address of the files; for Hugging Face, the folder of its cache.
        train_split: for training; for shards also their names, as `imagenet-train-{0000..1023}.tar|1281167`.
        val_split: for evaluation.
        train_num_samples: of a streamed split that does not say so itself.
        val_num_samples: the same for evaluation.
        class_map: file of the classes in the order of the labels; None for the set's own labels.
        input_key: field of the picture; None for timm's.
        target_key: field of the label; None for timm's.
        download: fetch a missing set, where that is possible.
    """

    name: str
    root: str
    train_split: str = "train"
    val_split: str = "validation"
    train_num_samples: int | None = None
    val_num_samples: int | None = None
    class_map: str | None = None
    input_key: str | None = None
    target_key: str | None = None
    download: bool = False

    @property
    def prefix(self) -> str:
        """Say which reader of timm's is meant."""
        return self.name.partition("/")[0].lower()

    @property
    def streamed(self) -> bool:
        """Say whether samples come one after the other, and not by index."""
        return self.prefix in STREAMED

    def open(self, *, train: bool, batch_size: int = 1, seed: int = 42) -> Any:
        """Return timm's data set of one split, without transforms.

        Args:
            train: the training split, shuffled where it is streamed.
            batch_size: of a stream, whose workers give whole batches.
            seed: of a stream's order.

        Raises:
            UserError: for a package, a split or files that are missing.
        """
        from timm.data import create_dataset

        package = SOURCES.get(self.prefix)
        if package and find_spec(package) is None:
            missing = package.replace("_", "-")
            raise UserError(f"--dataset-source {self.name} needs the package {missing}: pip install {missing}")
        part = "train" if train else "val"
        split = getattr(self, f"{part}_split")
        class_map = _class_map(self.class_map, self.root)
        try:
            return create_dataset(
                self.name, root=self.root, split=split, is_training=train, download=self.download,
                batch_size=batch_size, seed=seed, class_map=class_map, input_key=self.input_key,
                target_key=self.target_key, num_samples=getattr(self, f"{part}_num_samples"),
            )  # fmt: skip
        except Exception as error:
            # timm passes on whatever the network, the package behind it, or a file raises.
            raise UserError(
                f"--dataset-source {self.name}: split {split!r} can't be opened in {self.root} ({reason(error, 200)}); "
                f"check --data-dir and --{part}-split, and for a stream give --{part}-num-samples"
            ) from None


def _class_map(path: str | None, root: str) -> dict[str, int] | str | None:
    """Read the classes and their labels from a list or a pickle of plain values."""
    if not path:
        return None
    places = [Path(path), Path(root) / path]
    found = next((place for place in places if place.is_file()), None)
    if found is None:  # timm reports that
        return path
    if found.suffix.lower() not in (".txt", ".pkl"):
        raise UserError(f"--class-map {found}: must be a list (.txt) or a pickle (.pkl)")
    if found.suffix.lower() == ".txt":
        names = read_lines(found)
        numbers = {name.strip(): number for number, name in enumerate(names)}
        if "" in numbers or len(numbers) != len(names) or not names:
            raise UserError(f"--class-map {found}: needs one class on each line, and no class twice")
        return numbers
    try:
        with found.open("rb") as file:
            numbers = _PlainValues(file).load()
    except Exception as error:
        # pickle raises whatever the bytes of a damaged file make it raise.
        raise UserError(f"--class-map {found}: no plain pickle ({reason(error)}); write a .txt list") from None
    labels = numbers.values() if isinstance(numbers, dict) else [None]
    if not all(type(label) is int and label >= 0 for label in labels):
        raise UserError(f"--class-map {found}: needs a dictionary from class to label")
    return numbers


class _PlainValues(pickle.Unpickler):
    """Refuse a pickle that holds more than numbers, texts and containers."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it would load {module}.{name}")


@dataclass(eq=False)
class SourcePart(Dataset):
    """One split of a source: what is the same for access by index and for streams.

    Args:
        source: where it comes from.
        train: the training split.
        transform: from a PIL picture to a tensor.
        num_classes: labels have to be below, where the source has no names of its own.
        max_pixels: of a photo.
    """

    source: Source
    train: bool
    transform: Callable[[Image.Image], Tensor]
    num_classes: int
    max_pixels: int = MOST_PIXELS

    def __post_init__(self) -> None:
        self.stored = self.source.open(train=self.train)
        places = (getattr(self.stored, "reader", None), self.stored)
        numbers = next(filter(None, (getattr(place, "class_to_idx", None) for place in places)), {})
        self.classes = tuple(str(name) for name in sorted(numbers, key=numbers.get))
        self.num_classes = len(self.classes) or self.num_classes

    def __len__(self) -> int:
        return len(self.stored)

    def sample(self, picture: Image.Image, label: Any) -> tuple[Tensor, int]:
        """Return a picture (3, H, W) float32 and its label as a number.

        Raises:
            UserError: for a label that no output of the network stands for.
        """
        if isinstance(label, bool) or not hasattr(label, "__index__") or not 0 <= int(label) < self.num_classes:
            raise UserError(
                f"--dataset-source {self.source.name}: label {label!r} is none of 0 to {self.num_classes - 1}; set "
                "--num-classes, --class-map or --target-key"
            )
        return self.transform(picture), int(label)


class SourcePictures(SourcePart):
    """Serve a split of timm's that is read by index."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_folders(self.stored, self.source, self.source.train_split if self.train else self.source.val_split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a picture (3, H, W) float32 and its label."""
        reader, name = getattr(self.stored, "reader", None), f"{self.source.name}, sample {index}"
        try:
            with photos_only(name, self.max_pixels):
                # Not through timm's data set, which puts another picture into the place of a damaged one.
                found, label = (self.stored if reader is None else reader)[index]
        except UserError:
            raise
        except Exception as error:
            # The packages behind timm raise whatever a file, or a label that a map does not know, does to them.
            raise UserError(f"{name}: can't be read ({type(error).__name__}: {shown(error, 200)})") from None
        # torchvision's sets decode by themselves
        return self.sample(found.convert("RGB") if reader is None else decoded(found, name, self.max_pixels), label)


class PictureStream(SourcePart):
    """Describe a split that comes one sample after the other; `loading.streams.StreamLoader` reads it.

    Raises:
        UserError: for a split that can't be opened, or whose number of samples is unknown.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.samples = int(self.stored.reader.num_samples or 0)
        if not self.samples:
            name, part = self.source.name, "train" if self.train else "val"
            raise UserError(f"--dataset-source {name}: give --{part}-num-samples, which the shards don't say")
        del self.stored  # the loader opens it with the size of its batches

    def __len__(self) -> int:
        return self.samples


def _check_folders(stored: Any, source: Source, split: str) -> None:
    """Raise `UserError` where torchvision finds other photos in class folders than there are, or timm no split."""
    from torchvision.datasets import ImageFolder

    if type(stored) is not ImageFolder:
        return
    name = f"--dataset-source {source.name}"
    if Path(stored.root).resolve() == Path(source.root).resolve():
        raise UserError(f"{name}: there is no folder of the split {split} in {source.root}")
    paths, labels, _ = list_folder(Path(stored.root), source.name)
    other = set(labels) ^ set(stored.classes) or set(paths) ^ {path for path, _ in stored.samples}
    if other:
        raise UserError(
            f"{name}: torchvision reads {len(stored.samples)} photos of {len(stored.classes)} classes, and "
            f"{stored.root} holds {len(paths)} of {len(set(labels))} ({min(other)}); leave the option out"
        )
