"""CIFAR-10 and CIFAR-100 as pictures, and CIFAR-10 as sequences of pixels (`scifar10`)."""

from dataclasses import replace

from ..registry import PictureSet, SequenceSet, pixel_sequences, register_dataset, torchvision_pictures
from ..settings import CHARACTERS, Colours
from .cifar10_dvs import CLASSES as CIFAR10

CIFAR100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard",
    "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum",
    "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf",
    "woman", "worm",
)  # fmt: skip
# Spikformer's recipe (scale fixed at 1, so no random crop).
_AUGMENT = replace(CHARACTERS, hflip=0.5, aa="spikformer-m9-n1-mstd0.4-inc1", reprob=0.25)
_CITATION = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images (technical report, 2009)"
_SHARED = {"samples": (50000, 10000), "source": "torchvision fetches it", "citation": _CITATION}
_PICTURES = {"size": (32, 32), "augment": _AUGMENT, "read": torchvision_pictures, **_SHARED}
_FILES = "cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}"
_CIFAR10 = {
    "num_classes": 10,
    "classes": CIFAR10,
    "torchvision": "CIFAR10",
    "folders": (".", "cifar10"),
    "marks": ("cifar-10-batches-py",),
}
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

register_dataset(
    PictureSet(
        name="cifar10", tree=_FILES,
        colours=Colours(
            mean=_MEAN, std=_STD, origin="of the training pictures, as in the Spikformer family; SpikingResformer and "
            "BrainCog have std 0.2023, 0.1994, 0.2010",
        ),
        **_CIFAR10, **_PICTURES,
    )
)  # fmt: skip
register_dataset(
    PictureSet(
        name="cifar100", num_classes=100, classes=CIFAR100, tree="cifar-100-python/{train,test,meta}",
        colours=Colours(
            mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761),
            origin="of the training pictures; BrainCog uses those of CIFAR-10",
        ),
        torchvision="CIFAR100", folders=(".", "cifar100"), marks=("cifar-100-python",), **_PICTURES,
    )
)  # fmt: skip
register_dataset(
    SequenceSet(
        name="scifar10", size=(1, 3), length=1024, tree=f"{_FILES}, each picture read pixel by pixel, row after row,",
        colours=Colours(mean=_MEAN, std=_STD, origin="as cifar10"), read=pixel_sequences, **_CIFAR10, **_SHARED,
    )
)  # fmt: skip
