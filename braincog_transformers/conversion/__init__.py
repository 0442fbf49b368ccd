"""Conversion of trained networks to spiking ones, without or with training of a quantised network in between."""

from .converted import Converted
from .methods import Method, convert, prepare
from .sources import SOURCES

METHODS: dict[str, Method] = {}
"""The methods by name."""

__all__ = ["METHODS", "SOURCES", "Converted", "Method", "convert", "prepare"]
