"""A small method of conversion, for tests of what is the same for all of them."""

from dataclasses import dataclass

from torch import nn

from braincog_transformers import UserError
from braincog_transformers.conversion import Converted, Method
from braincog_transformers.nodes.valued import SoftResetNode, STBIFNode


@dataclass(frozen=True)
class ToyOptions:
    """Its options.

    Args:
        high: bound of an ST-BIF neuron; 0 for neurons with a soft reset.
        sizes: read by nothing; a tuple, which JSON does not know.
    """

    high: int = 0
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        if self.high < 0:
            raise UserError(f"toy: high must be at least 0; got {self.high}")


class ToyConverted(Converted):
    method = "toy"


def limit(ann, options, batches):
    return ann


def spiking(network, step, options, batches, settings):
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GELU | nn.ReLU):
                node = STBIFNode(0.5, high=options.high) if options.high else SoftResetNode(0.5)
                if batches is not None:
                    node.set_n_threshold(float(batches[0].abs().mean()))
                setattr(module, name, node)
    return ToyConverted(network, step, settings)


TOY = Method("toy", "none", ToyOptions, limit, spiking)
