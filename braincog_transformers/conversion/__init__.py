"""Conversion of trained networks to spiking ones, without or with training of a quantised network in between."""

from . import masked_spiking_transformer as masked_spiking_transformer  # registers its networks
from . import qcfs, rate, spikezip, sta
from . import rate_coded_transformer as rate_coded_transformer  # registers its networks
from .converted import Converted
from .methods import Method, convert, prepare
from .saving import is_converted, load_converted, save_converted
from .sources import SOURCES

METHODS: dict[str, Method] = {method.name: method for method in (qcfs.METHOD, sta.METHOD, spikezip.METHOD, rate.METHOD)}
"""The methods by name."""

__all__ = ["METHODS", "SOURCES", "Converted", "Method", "convert", "is_converted", "load_converted", "prepare"]
__all__ += ["save_converted"]
