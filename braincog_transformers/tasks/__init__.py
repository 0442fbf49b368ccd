"""Tasks other than classification. `find_task` imports one when it is used."""

from importlib import import_module

from ..errors import unknown
from .task import Meter, Task, TaskSettings

__all__ = ["Meter", "Task", "TaskSettings", "find_task"]

_CLASSES = {
    "track": ("tracking", "Tracking"),
    "depth": ("depth", "DepthEstimation"),
    "pose": ("pose", "PoseEstimation"),
    "detect": ("detection", "Detection"),
    "segment": ("segmentation", "Segmentation"),
}


def find_task(name: str) -> type[Task]:
    """Return the class of a task.

    Raises:
        UserError: for an unknown name.
    """
    if name not in _CLASSES:
        raise unknown("task", name, _CLASSES)
    module, cls = _CLASSES[name]
    return getattr(import_module(f".{module}", __name__), cls)
