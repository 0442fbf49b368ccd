"""Convolution and linear layer that mostly read spikes: where all they read is whole numbers, integers multiply."""

from torch import Tensor, nn

from ..ops import integer_products

__all__ = ["SpikeConv2d", "SpikeLinear"]


class SpikeConv2d(nn.Conv2d):
    """A convolution that computes in integers where that is faster, see `ops.integer_products`.

    Attributes:
        integer_products: whether it may.
    """

    integer_products = True

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C', H', W')`."""
        plain = self.groups == 1 and self.padding_mode == "zeros" and not isinstance(self.padding, str)
        if self.integer_products and plain and integer_products.applies(x, self.weight):
            return integer_products.convolve(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        return super().forward(x)


class SpikeLinear(nn.Linear):
    """A linear layer that computes in integers where that is faster, see `ops.integer_products`.

    Attributes:
        integer_products: whether it may.
    """

    integer_products = True

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., C)` to `(..., C')`."""
        if self.integer_products and integer_products.applies(x, self.weight):
            return integer_products.linear(x, self.weight, self.bias)
        return super().forward(x)
