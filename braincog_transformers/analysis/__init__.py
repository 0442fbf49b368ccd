"""Measure a network: recorded spikes, firing rates, operations and energy, memory; `pictures` draws them."""

import sys
from importlib import import_module
from types import ModuleType

_MOVED = {
    "architecture": "pictures.architecture",
    "attention": "attention_maps",
    "dataflow": "pictures.dataflow",
    "diagram": "pictures.diagram",
    "diagram_layout": "pictures.diagram_layout",
    "look": "pictures.visualize",
    "plot_classes": "pictures.classes",
    "plot_maps": "pictures.maps",
    "plots": "pictures.plots",
}
"""Modules by the names that they had before, which users' scripts import."""


class _Moved(ModuleType):
    """A module under its former name, imported when something in it is asked for."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__all__":  # tools ask every loaded module for such names
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_MOVED[self.__name__.rpartition('.')[2]]}", __name__), name)


for _name in _MOVED:
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _Moved(f"{__name__}.{_name}")
