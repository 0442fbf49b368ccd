"""The table of data sets under BrainCog's names: sizes, classes, normalisation, folders and where the files come from.

Nothing here imports torch, so that the command line can list the names at once. Class tables are constants: a label
never depends on what a folder happens to hold. A set is added by one entry here and, for a new file format, one reader
in `readers.py`.
"""

from dataclasses import dataclass
from typing import Literal

from ..errors import unknown
from .classes import CIFAR10, CIFAR100, DIGITS, DVSC10, DVSG, FASHION, SHD
from .settings import Augment

__all__ = ["DATASETS", "DatasetInfo", "lookup"]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Describe one data set.

    Args:
        name: BrainCog's name.
        kind: pictures, event recordings, or sequences of spikes in channels without a place.
        num_classes: number of classes of the whole set.
        in_chans: channels of a picture, or polarities (OFF, ON) of events; 1 for a sequence.
        size: (H, W) that a network sees by default; for events the sensor's; (1, channels) for a sequence.
        mean: per channel, of training pictures in [0, 1]; empty for events, which stay raw counts.
        std: the same for the standard deviation.
        classes: names in the order of the labels; empty where the folders name them (`imnet`).
        samples: (training, test) samples of the complete set; (all, 0) where there is no official test split.
        editions: the same of other complete editions.
        text_order: whether published checkpoints exist whose labels are the set's own in the order of a text.
        tree: what must lie where below the data folder.
        source: how to get it.
        downloadable: whether `--download` fetches it.
        folder: name of its folder below the data folder.
        places: every folder below the data folder in which it is looked for, in this order.
        split_folders: folders of the official training and test split, if there is one.
        splits: named splits of a set without an official one, the default first.
        marks: files or folders of which one shows that the set lies there; by default recordings in class folders.
        endings: of the recordings' files.
        augment: what is varied in training where the user says nothing.
    """

    name: str
    kind: Literal["image", "event", "sequence"]
    num_classes: int
    in_chans: int
    size: tuple[int, int]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    samples: tuple[int, int]
    editions: tuple[tuple[int, int], ...] = ()
    text_order: bool = False
    tree: str
    source: str
    downloadable: bool = False
    folder: str = ""
    places: tuple[str, ...] = (".",)
    split_folders: tuple[str, str] | None = None
    splits: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    augment: Augment


# Small grey digits: a flip makes another character, colour changes mean nothing.
_PLAIN = Augment(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0, vflip=0.0, color_jitter=0.0, aa="", reprob=0.0, remode="const",
    recount=1, train_interpolation="bicubic", interpolation="bicubic", crop_pct=1.0, event_augment="none",
)  # fmt: skip
# Spikformer's recipe (scale fixed at 1, so no random crop).
_CIFAR = Augment(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.5, vflip=0.0, color_jitter=0.0, aa="spikformer-m9-n1-mstd0.4-inc1",
    reprob=0.25, remode="const", recount=1, train_interpolation="bicubic", interpolation="bicubic", crop_pct=1.0,
    event_augment="none",
)  # fmt: skip
# The defaults of BrainCog's command line, which are timm's.
_PHOTOS = Augment(
    scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, vflip=0.0, color_jitter=0.4, aa="rand-m9-mstd0.5-inc1",
    reprob=0.25, remode="pixel", recount=1, train_interpolation="random", interpolation="bicubic", crop_pct=0.875,
    event_augment="none",
)  # fmt: skip
_NO_EVENT_AUGMENT = Augment(hflip=0.0, vflip=0.0, event_augment="none")
# BrainCog's loader: padded random crop and flip.
_CROP_AND_FLIP = Augment(hflip=0.5, vflip=0.0, event_augment="crop")

_ENTRIES = (
    DatasetInfo(
        name="digits", kind="image", num_classes=10, in_chans=1, size=(8, 8), mean=(0.3053,), std=(0.3760,),
        classes=DIGITS, samples=(1437, 360), tree="nothing, it comes with scikit-learn",
        source="install scikit-learn, which braincog requires", augment=_PLAIN,
    ),
    DatasetInfo(
        name="ndigits", kind="event", num_classes=10, in_chans=2, size=(34, 34), classes=DIGITS, samples=(1437, 360),
        tree="nothing, it is simulated from scikit-learn's digits at first use",
        source="install scikit-learn, which braincog requires", split_folders=("Train", "Test"), endings=(".bin",),
        augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="nmnist", kind="event", num_classes=10, in_chans=2, size=(34, 34), classes=DIGITS, samples=(60000, 10000),
        tree="NMNIST/Train/<0..9>/NNNNN.bin and NMNIST/Test/<0..9>/NNNNN.bin",
        source="unpack Train.zip and Test.zip of Mendeley data set 468j46mzdv (garrickorchard.com/datasets/n-mnist)",
        folder="NMNIST", places=("nmnist", "NMNIST", "DVS/N-MNIST/NMNIST", "."), split_folders=("Train", "Test"),
        endings=(".bin",), augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="dvsc10", kind="event", num_classes=10, in_chans=2, size=(128, 128), classes=DVSC10, samples=(10000, 0),
        tree="dvsc10/<airplane..truck>/*.aedat (or *.aedat4)",
        source="unpack the ten class archives of figshare article 4724671 (.aedat), or CIFAR10DVS.zip of figshare file "
        "38023437 (.aedat4)",
        folder="dvsc10", places=("dvsc10", "CIFAR10DVS", "DVS/DVS_Cifar10/CIFAR10DVS", "extract", "."),
        splits=("text", "tebn", "random"), endings=(".aedat", ".aedat4"), augment=_CROP_AND_FLIP,
    ),
    DatasetInfo(
        name="dvsg", kind="event", num_classes=11, in_chans=2, size=(128, 128), classes=DVSG, samples=(1176, 288),
        tree="DvsGesture/{trials_to_train.txt,trials_to_test.txt,<trial>.aedat,<trial>_labels.csv} (or tonic's "
        "DVSGesture/ibmGesture{Train,Test}/<trial>/<0..10>.npy)",
        source="unpack DvsGesture.tar.gz of research.ibm.com/dvsgesture", folder="DvsGesture",
        places=(
            "DvsGesture", "dvsg", "DVSGesture", "DVS128Gesture", "DVS128Gesture/extract/DvsGesture",
            "DVS/DVSGesture/DVSGesture", ".",
        ),
        editions=((1077, 264),), text_order=True, marks=("trials_to_train.txt", "ibmGestureTrain"),
        endings=(".aedat", ".npy"), augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="shd", kind="sequence", num_classes=20, in_chans=1, size=(1, 700), classes=SHD, samples=(8156, 2264),
        tree="SHD/shd_train.h5 and SHD/shd_test.h5 (or .h5.gz)",
        source="unpack shd_train.h5.zip and shd_test.h5.zip of zenkelab.org/datasets", downloadable=True, folder="SHD",
        places=("SHD", "shd", "DVS/SHD/SHD", "."), marks=("shd_train.h5", "shd_train.h5.gz"), augment=Augment(),
    ),
    DatasetInfo(
        name="mnist", kind="image", num_classes=10, in_chans=1, size=(28, 28), mean=(0.1307,), std=(0.3081,),
        classes=DIGITS, samples=(60000, 10000), tree="MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte",
        source="torchvision fetches it", downloadable=True, folder="MNIST/raw", places=(".", "mnist"), augment=_PLAIN,
    ),
    DatasetInfo(
        name="fashion", kind="image", num_classes=10, in_chans=1, size=(28, 28), mean=(0.2860,), std=(0.3530,),
        classes=FASHION, samples=(60000, 10000),
        tree="FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte (not .gz)",
        source="torchvision fetches it", downloadable=True, folder="FashionMNIST/raw", places=(".", "fashion"),
        augment=_PLAIN,
    ),
    DatasetInfo(
        name="cifar10", kind="image", num_classes=10, in_chans=3, size=(32, 32), mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616), classes=CIFAR10, samples=(50000, 10000),
        tree="cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}", source="torchvision fetches it",
        downloadable=True, folder="cifar-10-batches-py", places=(".", "cifar10"), augment=_CIFAR,
    ),
    DatasetInfo(
        name="cifar100", kind="image", num_classes=100, in_chans=3, size=(32, 32), mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761), classes=CIFAR100, samples=(50000, 10000),
        tree="cifar-100-python/{train,test,meta}", source="torchvision fetches it", downloadable=True,
        folder="cifar-100-python", places=(".", "cifar100"), augment=_CIFAR,
    ),
    DatasetInfo(
        name="imnet", kind="image", num_classes=1000, in_chans=3, size=(224, 224), mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225), samples=(1281167, 50000),
        tree="imnet/train/<class>/*.JPEG and imnet/val/<class>/*.JPEG (or validation/)",
        source="unpack the ILSVRC2012 archives of image-net.org and sort the validation pictures into class folders",
        folder="imnet", places=(".", "ILSVRC2012", "imnet"), augment=_PHOTOS,
    ),
)  # fmt: skip

DATASETS: dict[str, DatasetInfo] = {entry.name: entry for entry in _ENTRIES}


def lookup(name: str) -> DatasetInfo:
    """Return the entry of a data set.

    Raises:
        UserError: for a name that is not in the table.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    return DATASETS[name]
