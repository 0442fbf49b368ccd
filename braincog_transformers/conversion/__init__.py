"""Conversion of trained networks to spiking ones, without or with training of a quantised network in between."""

from .converted import Converted
from .methods import Method, convert, prepare
from .saving import is_converted, load_converted, save_converted
from .sources import SOURCES

METHODS: dict[str, Method] = {}
"""The methods by name."""

__all__ = ["METHODS", "SOURCES", "Converted", "Method", "convert", "is_converted", "load_converted", "prepare"]
__all__ += ["save_converted"]
