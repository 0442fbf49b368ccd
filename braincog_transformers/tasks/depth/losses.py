"""The losses of logarithmic depth: scale-invariant error, and its gradients at several scales.

Source: Zhang et al., ECCV 2022, as the official code computes them; pixels without a label (NaN) don't count.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DepthLoss", "gradient_loss", "scale_invariant_loss"]


def scale_invariant_loss(error: Tensor, si_lambda: float = 1.0) -> Tensor:
    """Return `mean(e^2) - si_lambda * mean(e)^2` over all known pixels of the batch.

    Args:
        error: prediction minus label, any shape, NaN where there is no label.
        si_lambda: with 1 this is the variance, so the same offset everywhere costs nothing.

    Returns:
        A scalar, 0 where nothing is known.
    """
    known = error[~error.isnan()]
    return known.square().mean() - si_lambda * known.mean().square() if len(known) else error.new_zeros(())


def gradient_loss(error: Tensor, scales: int = 4) -> Tensor:
    """Return the mean over scales of twice the batch size times the mean absolute Sobel response.

    At scale i the error is averaged over squares of 2**i pixels. A response counts where all that it sees is known.

    Args:
        error: `(B, 1, H, W)`, NaN where there is no label; sides of 2**(scales - 1) or more.
        scales: how many there are.
    """
    unknown = error.isnan().to(error.dtype)
    known = torch.where(error.isnan(), 0, error)
    smooth = error.new_tensor([1.0, 2.0, 1.0])
    across = smooth[:, None] * error.new_tensor([-1.0, 0.0, 1.0]) / 8
    kernels = torch.stack([across, across.T])[:, None]
    total = error.new_zeros(())
    for scale in range(scales):
        maps = [F.avg_pool2d(one, 2**scale) if scale else one for one in (known, unknown)]
        values, gaps = (F.pad(one, (1, 1, 1, 1), mode="replicate") for one in maps)
        counts = F.max_pool2d(gaps, 3, 1) == 0
        if counts.any():
            responses = F.conv2d(values, kernels).abs() * counts
            total = total + responses.sum() / (2 * counts.sum()) * len(error) * 2
    return total / scales


class DepthLoss(nn.Module):
    """`scale_invariant_loss + grad_weight * gradient_loss` of a prediction and its label.

    Args:
        si_lambda: see `scale_invariant_loss`.
        grad_weight: of the second term.
    """

    def __init__(self, si_lambda: float = 1.0, grad_weight: float = 0.25):
        super().__init__()
        self.si_lambda, self.grad_weight = si_lambda, grad_weight

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a batch.

        Args:
            output: `(B, 1, H, W)` from 0 to 1.
            target: the labels, or a `runtime.batch.Batch` that has them as `depth`.
        """
        label = target if isinstance(target, Tensor) else target.depth
        with torch.autocast(output.device.type, enabled=False):
            error = output.to(torch.promote_types(torch.float32, output.dtype)) - label
            return scale_invariant_loss(error, self.si_lambda) + self.grad_weight * gradient_loss(error)
