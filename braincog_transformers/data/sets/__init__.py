"""One file for each data set, or for a small family: what it is, where it comes from, and how it is read."""

from importlib import import_module

_FILES = (
    "digits", "nmnist", "cifar10_dvs", "dvs_gesture", "ncaltech101", "ncars", "pix2nvs", "bullying10k", "es_imagenet",
    "n_omniglot", "heidelberg", "mnist", "cifar", "tiny_imagenet", "imagenet", "segmentation",
    "depth", "pose", "tracking", "detection",
)  # fmt: skip
for _name in _FILES:  # in the order of the printed tables
    import_module(f".{_name}", __name__)
