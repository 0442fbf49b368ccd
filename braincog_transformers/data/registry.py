"""The table of data sets, and what an entry says; without torch or NumPy, so that the command line answers at once.

Each set, or small family, is one file in `sets/`. A set of your own is an entry that `register_dataset` adds, from any
module: docs/add_a_data_set.md shows one of each kind.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import UserError, unknown
from .settings import EVENTS, NOTHING, PHOTOS, Access, Augment, Colours, Split

__all__ = ["DATASETS", "DatasetInfo", "EventSet", "PictureSet", "SequenceSet", "TaskSet", "lookup", "register_dataset"]


def class_folders(info: "PictureSet", data_dir: Path, access: Access) -> tuple[Any, Any, tuple[str, ...]]:
    """Read photos in `train` and `val` or `validation`, each in class folders or tars."""
    from .pictures.class_folders import read_class_folders

    return read_class_folders(info, data_dir, access)


def torchvision_pictures(info: "PictureSet", data_dir: Path, access: Access) -> tuple[Any, Any, tuple[str, ...]]:
    """Let torchvision read, and with `download` fetch, the set that it calls `info.torchvision`."""
    from .pictures.torchvision_sets import read_torchvision

    return read_torchvision(info, data_dir, access)


def class_recordings(root: Path, info: "EventSet", split: Split) -> list[tuple[list, list[int]]]:
    """List recordings in class folders, in the set's folders for each split or split by a rule."""
    from .events.dataset import class_sides

    return class_sides(root, info, split)


def spike_files(info: "SequenceSet", data_dir: Path, access: Access, *, steps: int, split: Split) -> tuple[Any, Any]:
    """Read `<name>_train.h5` and `<name>_test.h5`, spikes in the format of the Heidelberg sets, or `.h5.gz`."""
    from .sequences.spikes import read_spike_files

    return read_spike_files(info, data_dir, access, steps=steps, split=split)


def pixel_sequences(info: "SequenceSet", data_dir: Path, access: Access, **_: Any) -> tuple[Any, Any]:
    """Read pictures of torchvision's pixel by pixel."""
    from .sequences.pixels import read_pixels

    return read_pixels(info, data_dir, access)


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Describe one data set; the three kinds below add what belongs to them.

    Args:
        name: on the command line; BrainCog's, where it has the set.
        num_classes: number of classes of the whole set.
        size: (H, W) that a network sees by default; for events the sensor's; (1, channels) for a sequence.
        classes: names in the order of the labels; empty where the folders name them (`imnet`), the files (`ssc`, in
            extra/keys) or nothing does (`esimnet`, whose lists have numbers).
        samples: (training, test) samples of the complete set; (all, 0) where there is no official test split; None
            where any number will do.
        editions: the same of other complete editions.
        tree: the files and folders that are expected below the data folder.
        note: what README's table says besides.
        source: how to get it.
        licence: of the data.
        citation: of the paper that introduced it.
        folders: every folder below the data folder in which it is looked for, in this order; none for a set that needs
            no files.
        marks: files or folders of which one shows that the set is there; by default its class folders.
        fetch: function of the entry and the data folder that fetches a missing set.
        augment: what is varied in training where the user says nothing.
    """

    kind: ClassVar[str]
    # what a set of another kind has
    colours: ClassVar[Colours | None] = None
    length: ClassVar[int | None] = None
    splits: ClassVar[tuple[str, ...]] = ()
    text_order: ClassVar[tuple[int, ...]] = ()
    endings: ClassVar[tuple[str, ...]] = ()
    given_steps: ClassVar[int] = 0
    validation: ClassVar[bool] = False
    torchvision: ClassVar[str] = ""
    task: ClassVar[str] = ""
    fewest_classes: ClassVar[int] = 1

    name: str
    num_classes: int
    size: tuple[int, int]
    classes: tuple[str, ...] = ()
    samples: tuple[int, int] | None = None
    editions: tuple[tuple[int, int], ...] = ()
    tree: str
    note: str = ""
    source: str = "see its authors"
    licence: str = "see the source"
    citation: str = "see the source"
    folders: tuple[str, ...] = (".",)
    marks: tuple[str, ...] = ()
    fetch: Callable[["DatasetInfo", Path], None] | None = None
    augment: Augment

    def __post_init__(self) -> None:
        problem = ""
        if self.num_classes < self.fewest_classes or len(self.classes) not in (0, self.num_classes):
            problem = f"num_classes is {self.num_classes}, and classes names {len(self.classes)}"
        elif len(set(self.classes)) != len(self.classes):
            problem = "classes names one twice"
        elif len(self.size) != 2 or min(self.size) < 1:
            problem = f"size must be two sides of 1 pixel or more; got {self.size}"
        elif self.colours and {len(self.mean), len(self.std)} != {self.channels}:
            problem = f"colours needs {self.channels} numbers for mean and for std"
        if problem:
            raise UserError(f"data set {self.name}: {problem}")

    @property
    def channels(self) -> int:
        """Number of values that `colours` normalises."""
        return self.in_chans

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel of training pictures in [0, 1]; empty for events, which stay raw counts."""
        return self.colours.mean if self.colours else ()

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, as `mean`."""
        return self.colours.std if self.colours else ()

    @property
    def downloadable(self) -> bool:
        """Whether `--download` fetches it."""
        return bool(self.fetch or self.torchvision)


@dataclass(frozen=True, kw_only=True)
class PictureSet(DatasetInfo):
    """Describe a set of pictures, by default photos in class folders.

    Args:
        in_chans: channels of a picture.
        colours: mean and deviation, and where they come from.
        torchvision: name of the class of torchvision's that reads it.
        read: function of the entry, the data folder and an `Access` that returns training pictures, test pictures
            (each with `targets`, and a PIL picture at each index) and the names of the classes.
    """

    kind = "image"
    in_chans: int = 3
    size: tuple[int, int] = (224, 224)
    colours: Colours
    torchvision: str = ""
    augment: Augment = PHOTOS
    read: Callable[["PictureSet", Path, Access], tuple[Any, Any, tuple[str, ...]]] = class_folders


@dataclass(frozen=True, kw_only=True)
class EventSet(DatasetInfo):
    """Describe a set of event recordings, by default in class folders.

    Args:
        size: (H, W) of the sensor.
        endings: of the recordings' files.
        split_folders: folders of the official training and test split, if there is one.
        splits: named splits of a set without an official one, the default first.
        sides: function of the folder that was found, the entry and a `Split` that returns recordings and labels of the
            training and the test samples.
        simulate: function of the cache folder that makes the recordings of a set without files, and returns their
            folder.
        smallest: size in bytes below which a recording is passed over as empty.
        top_left: whether recordings differ in size, and are shifted to the sensor's first column and row.
        given_steps: steps that a recording comes in, for a set whose events have no other times.
        text_order: the classes sorted by the names of their folders as text, where checkpoints or loaders with such
            labels were published.
    """

    kind = "event"
    in_chans: ClassVar[int] = 2
    endings: tuple[str, ...]
    split_folders: tuple[str, str] | None = None
    splits: tuple[str, ...] = ()
    sides: Callable[[Path, "EventSet", Split], list[tuple[list, list[int]]]] = class_recordings
    simulate: Callable[[Path], Path] | None = None
    smallest: int = 0
    top_left: bool = False
    given_steps: int = 0
    text_order: tuple[int, ...] = ()
    augment: Augment = EVENTS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sides is class_recordings and not (self.classes and (self.splits or self.split_folders)):
            raise UserError(f"data set {self.name}: needs classes, and split_folders or splits")
        if self.given_steps not in (0, 8):
            problem = f"given_steps is 0 or 8, the only number read; got {self.given_steps}"
            raise UserError(f"data set {self.name}: {problem}")


@dataclass(frozen=True, kw_only=True)
class SequenceSet(DatasetInfo):
    """Describe a set of sequences (T, channels), by default spikes in HDF5 files.

    Args:
        size: (1, channels).
        length: steps of a sequence whose number is not chosen.
        colours: mean and deviation of each channel, if it is normalised.
        torchvision: name of the class of torchvision's that holds the pictures that are read pixel by pixel.
        permutation: seed of the one order in which the pixels of all pictures are read; None for row after row.
        validation: whether there is a validation split besides, for `--split valid`.
        read: function of the entry, the data folder, an `Access`, the number of steps and a `Split` that returns
            training and test samples (x, label), each with `targets`; and with `classes`, where the entry names none.
    """

    kind = "sequence"
    in_chans: ClassVar[int] = 1
    length: int | None = None
    colours: Colours | None = None
    torchvision: str = ""
    permutation: int | None = None
    validation: bool = False
    augment: Augment = NOTHING
    read: Callable[..., tuple[Any, Any]] = spike_files

    @property
    def channels(self) -> int:
        """Number of values of one step."""
        return self.size[1]


@dataclass(frozen=True, kw_only=True)
class TaskSet(DatasetInfo):
    """Describe a set for a task other than classification.

    Args:
        task: which `--task` reads it.
        layout: name of the layout of its files, by which the task chooses a reader. A set of your own with the files
            of a known one has its layout.
        holds: what a sample is read from, "image" or "event", where a backbone of the zoo sees it.
        num_classes: of objects or regions; 0 where there are none.
        in_chans: channels of a picture or frame.
        colours: mean and deviation of pictures.
        folders: below the data folder, as ever; none for a scene that the task generates.
    """

    kind = "task"
    fewest_classes: ClassVar[int] = 0
    task: str
    layout: str
    holds: str = "image"
    num_classes: int = 0
    in_chans: int = 3
    size: tuple[int, int]
    colours: Colours | None = None
    augment: Augment = NOTHING


DATASETS: dict[str, DatasetInfo] = {}


def register_dataset(info: DatasetInfo) -> DatasetInfo:
    """Add an entry to the table, under its name, and return it.

    Raises:
        UserError: for a name that is taken.
    """
    if info.name in DATASETS:
        raise UserError(f"data set {info.name} is registered already; choose another name")
    DATASETS[info.name] = info
    return info


def lookup(name: str) -> DatasetInfo:
    """Return the entry of a data set.

    Raises:
        UserError: for a name that is not in the table.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    return DATASETS[name]
