"""Convolutions and normalisations that see the visible positions of masked pictures only; hidden ones stay 0.

Source: K. Tian et al., Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling (ICLR 2023).
"""

from einops import repeat
from torch import Tensor, nn

from ..errors import UserError

__all__ = ["VisiblePatches", "show_visible_only"]


class VisiblePatches:
    """Which patches of each picture are visible, at the resolution of any map. All pictures show as many.

    Attributes:
        grid_size: height and width of the map of patches.
        patches: numbers of the visible patches by row and column, `(B, K)`; None before the first call.
    """

    def __init__(self, grid_size: tuple[int, int]):
        self.grid_size = grid_size
        self.patches: Tensor | None = None

    def mask(self, x: Tensor) -> Tensor:
        """Return 1 for visible and 0 for hidden positions of maps `(T*B, C, H, W)`: `(T*B, 1, H, W)`."""
        flags = x.new_zeros(len(x), 1, x.shape[2] * x.shape[3])
        return flags.scatter(2, self.positions(x)[:, None], 1).reshape(-1, 1, *x.shape[2:])

    def positions(self, x: Tensor) -> Tensor:
        """Return the numbers of the visible positions of maps `(T*B, C, H, W)`, by row and column: `(T*B, P)`."""
        (rows, columns), (height, width) = self.grid_size, x.shape[2:]
        # a map of other sides is made of no patches: the layer belongs to no stem that halves the side
        if height % rows or width % columns:
            raise UserError(f"maps of {height} x {width} positions are no multiple of {rows} x {columns} patches")
        down, right = height // rows, width // columns
        places = self.patches.new_tensor(range(down))[:, None] * width + self.patches.new_tensor(range(right))
        corners = (self.patches // columns) * (down * width) + (self.patches % columns) * right
        found = (corners[:, :, None] + places.flatten()).flatten(1)
        return repeat(found, "b p -> (t b) p", t=len(x) // len(found))


class _VisibleConv2d(nn.Conv2d):
    """Convolution whose output at hidden positions is 0."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * self.visible.mask(y)


class _VisibleBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with the statistics of visible positions; its output at hidden positions is 0."""

    def forward(self, x: Tensor) -> Tensor:
        places = self.visible.positions(x)[:, None].expand(-1, x.shape[1], -1)
        y = super().forward(x.flatten(2).gather(2, places).unsqueeze(3)).squeeze(3)
        return y.new_zeros(y.shape[0], y.shape[1], x[0, 0].numel()).scatter(2, places, y).reshape(x.shape)


_VISIBLE = {nn.Conv2d: _VisibleConv2d, nn.BatchNorm2d: _VisibleBatchNorm2d}


def show_visible_only(module: nn.Module, visible: VisiblePatches) -> None:
    """Let every convolution and normalisation of maps in a module see visible positions only: in place, so that
    weights, hooks and references stay.

    Args:
        module: any part of a network that maps pictures to their patches.
        visible: which positions are visible; the caller sets its patches before each call.
    """
    for layer in module.modules():
        if type(layer) in _VISIBLE:
            layer.__class__ = _VISIBLE[type(layer)]
            layer.visible = visible
