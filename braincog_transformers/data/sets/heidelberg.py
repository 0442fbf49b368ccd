"""Spiking Heidelberg Digits and Spiking Speech Commands: spoken words as spikes of 700 channels of a model cochlea."""

from ..loading.fetching import ByTonic
from ..registry import SequenceSet, register_dataset

SHD = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun",
)  # fmt: skip
_ABOUT = {
    "size": (1, 700),
    "licence": "CC BY 4.0",
    "citation": "Cramer et al., The Heidelberg Spiking Data Sets for the Systematic Evaluation of Spiking Neural "
    "Networks (IEEE Transactions on Neural Networks and Learning Systems 2022)",
}

register_dataset(
    SequenceSet(
        name="ssc", num_classes=35, samples=(75466, 20382), editions=((75466, 9981),), validation=True,
        tree="SSC/ssc_train.h5, SSC/ssc_valid.h5 and SSC/ssc_test.h5 (or .h5.gz)",
        note="tests on the test samples, or with `--split valid` on the validation samples; held in memory as a whole",
        source="unpack ssc_train.h5.zip, ssc_valid.h5.zip and ssc_test.h5.zip of zenkelab.org/datasets",
        fetch=ByTonic("SSC", {"split": "train"}, {"split": "valid"}, {"split": "test"}),
        folders=("SSC", "ssc", "DVS/SSC/SSC", "."), **_ABOUT,
    )
)  # fmt: skip
register_dataset(
    SequenceSet(
        name="shd", num_classes=20, classes=SHD, samples=(8156, 2264),
        tree="SHD/shd_train.h5 and SHD/shd_test.h5 (or .h5.gz)",
        source="unpack shd_train.h5.zip and shd_test.h5.zip of zenkelab.org/datasets",
        fetch=ByTonic("SHD", {"train": True}, {"train": False}), folders=("SHD", "shd", "DVS/SHD/SHD", "."), **_ABOUT,
    )
)  # fmt: skip
