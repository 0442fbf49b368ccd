"""Data sets: the table of names here, without torch; readers, frames, augmentation, loaders in the folders below."""

from . import sets  # noqa: F401 - each of its files registers its sets
from .registry import DATASETS, DatasetInfo, EventSet, PictureSet, SequenceSet, register_dataset

__all__ = ["DATASETS", "DatasetInfo", "EventSet", "PictureSet", "SequenceSet", "register_dataset"]
