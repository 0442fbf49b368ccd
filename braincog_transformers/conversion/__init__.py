"""Conversion of trained networks to spiking ones, without or with training of a quantised network in between."""

from .converted import Converted
from .methods import Method, convert, prepare
from .saving import is_converted, load_converted, save_converted
from .sta import METHOD as STA

METHODS: dict[str, Method] = {method.name: method for method in (STA,)}
"""The methods by name."""

__all__ = ["METHODS", "Converted", "Method", "convert", "is_converted", "load_converted", "prepare", "save_converted"]
