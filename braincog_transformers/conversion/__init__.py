"""Conversion of trained networks to spiking ones, without or with training of a quantised network in between."""

from .converted import Converted
from .methods import Method, convert, prepare
from .rate import METHOD as _RATE

METHODS: dict[str, Method] = {method.name: method for method in (_RATE,)}
"""The methods by name."""

__all__ = ["METHODS", "Converted", "Method", "convert", "prepare"]
