"""Data sets: the table of names here, without torch; readers, frames, augmentation, loaders in the modules beside."""

from .catalog import DATASETS, DatasetInfo

__all__ = ["DATASETS", "DatasetInfo"]
