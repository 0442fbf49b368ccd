"""MNIST and Fashion-MNIST as pictures, and MNIST as sequences of pixels (`smnist`, `psmnist`)."""

from ..registry import PictureSet, SequenceSet, pixel_sequences, register_dataset, torchvision_pictures
from ..settings import CHARACTERS, Colours

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FILES = "raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"
_SHARED = {"num_classes": 10, "samples": (60000, 10000), "source": "torchvision fetches it"}
_MNIST = {"torchvision": "MNIST", "classes": DIGITS, "folders": (".", "mnist"), "marks": ("MNIST/raw",), **_SHARED}
_PAPER = "LeCun et al., Gradient-based learning applied to document recognition (Proceedings of the IEEE 1998)"
_AS_PIXELS = {
    "size": (1, 1),
    "length": 784,
    "colours": Colours(mean=(0.1307,), std=(0.3081,), origin="as mnist"),
    "read": pixel_sequences,
    "citation": f"{_PAPER}; Le et al., A Simple Way to Initialize Recurrent Networks of Rectified Linear Units "
    "(arXiv:1504.00941)",
}

register_dataset(
    PictureSet(
        name="mnist", in_chans=1, size=(28, 28), tree=f"MNIST/{_FILES}", augment=CHARACTERS, citation=_PAPER,
        colours=Colours(mean=(0.1307,), std=(0.3081,), origin="of the training pictures, as in BrainCog"),
        read=torchvision_pictures, **_MNIST,
    )
)  # fmt: skip
register_dataset(
    PictureSet(
        name="fashion", in_chans=1, size=(28, 28), classes=FASHION, tree=f"FashionMNIST/{_FILES} (not .gz)",
        colours=Colours(
            mean=(0.2860,), std=(0.3530,), origin="of the training pictures; BrainCog leaves them in [0, 1]"
        ),
        torchvision="FashionMNIST", read=torchvision_pictures, folders=(".", "fashion"), marks=("FashionMNIST/raw",),
        licence="MIT", citation="Xiao et al., Fashion-MNIST (arXiv:1708.07747)", augment=CHARACTERS, **_SHARED,
    )
)  # fmt: skip
register_dataset(
    SequenceSet(
        name="smnist", tree=f"MNIST/{_FILES}, each picture read pixel by pixel, row after row,", **_AS_PIXELS, **_MNIST
    )
)
# The permutation of most published results since Helfrich et al. (arXiv:1707.09520).
register_dataset(
    SequenceSet(
        name="psmnist", permutation=92916, tree=f"MNIST/{_FILES}, the pixels of each picture read in the order "
        "numpy.random.RandomState(92916).permutation(784),", **_AS_PIXELS, **_MNIST,
    )
)  # fmt: skip
