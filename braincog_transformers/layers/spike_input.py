"""What layers share whose convolution or linear layer mostly reads spikes."""

from torch import Tensor, nn

from ..ops.kernels.integer_products import in_integers

__all__ = ["SpikeInput"]


class SpikeInput(nn.Module):
    """Base of such layers, which hold plain modules of PyTorch's and call them by `_multiply`.

    Attributes:
        integer_products: whether products may be computed in integers, see `ops.kernels.integer_products`.
    """

    integer_products = True

    def _multiply(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return `layer(x)`."""
        return in_integers(layer, x) if self.integer_products else layer(x)
