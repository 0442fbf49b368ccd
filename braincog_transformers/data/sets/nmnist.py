"""N-MNIST: the digits of MNIST, seen by a camera that moves along three saccades."""

from ..loading.fetching import ByTonic
from ..registry import EventSet, register_dataset

CITATION = (
    "Orchard et al., Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades (Frontiers in "
    "Neuroscience 2015)"
)

register_dataset(
    EventSet(
        name="nmnist", num_classes=10, size=(34, 34), classes=tuple("0123456789"), samples=(60000, 10000),
        tree="NMNIST/Train/<0..9>/NNNNN.bin and NMNIST/Test/<0..9>/NNNNN.bin",
        source="unpack Train.zip and Test.zip of Mendeley data set 468j46mzdv (garrickorchard.com/datasets/n-mnist)",
        citation=CITATION, fetch=ByTonic("NMNIST", {"train": True}, {"train": False}),
        folders=("nmnist", "NMNIST", "DVS/N-MNIST/NMNIST", "."), split_folders=("Train", "Test"), endings=(".bin",),
    )
)  # fmt: skip
