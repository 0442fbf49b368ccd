"""One module by family of models: tiny sizes, parameter counts, and how to build the networks of its vectors."""

from . import qkformer, sdt, sdt_v2, sglformer, spikformer, spikingformer, spikingresformer, tim

FAMILIES = (qkformer, sdt, sdt_v2, sglformer, spikformer, spikingformer, spikingresformer, tim)


def family_of(name):
    """Return the module of a registered name: the one with the longest fitting name."""
    fitting = [f for f in FAMILIES if name.startswith((_stem(f), *f.ALIASES))]
    return max(fitting, key=lambda f: len(_stem(f)))


def _stem(module):
    return module.__name__.rsplit(".", 1)[1]
