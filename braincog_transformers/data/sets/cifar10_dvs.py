"""CIFAR10-DVS: pictures of CIFAR-10, seen by a DVS while they move on a screen; without an official split."""

from ..loading.fetching import ByTonic
from ..registry import EventSet, register_dataset
from ..settings import Augment

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

register_dataset(
    EventSet(
        name="dvsc10", num_classes=10, size=(128, 128), classes=CLASSES, samples=(10000, 0),
        tree="dvsc10/<airplane..truck>/*.aedat (or *.aedat4)",
        note="`--download` fetches tonic's `.aedat4`, whose orientation may differ from the official files': never mix "
        "the two",
        source="unpack the ten class archives of figshare article 4724671 (.aedat), or CIFAR10DVS.zip of figshare file "
        "38023437 (.aedat4)",
        citation="Li et al., CIFAR10-DVS: An Event-Stream Dataset for Object Classification (Frontiers in Neuroscience "
        "2017)",
        fetch=ByTonic("CIFAR10DVS", {}),
        folders=("dvsc10", "CIFAR10DVS", "DVS/DVS_Cifar10/CIFAR10DVS", "extract", "."),
        splits=("text", "tebn", "random"), endings=(".aedat", ".aedat4"),
        augment=Augment(hflip=0.5, vflip=0.0, event_augment="crop"),  # BrainCog's padded random crop and flip
    )
)  # fmt: skip
