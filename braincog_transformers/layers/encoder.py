"""BrainCog's `Encoder` with its temporal codes in working order."""

import torch
from braincog.base.encoder.encoder import Encoder as BrainCogEncoder
from torch import Tensor

from ..errors import unknown

__all__ = ["ENCODINGS", "Encoder"]

ENCODINGS = ("direct", "rate", "ttfs", "phase")


class Encoder(BrainCogEncoder):
    """Turn static images `(B, C, H, W)` or event frames `(B, T, C, H, W)` into T inputs, `(T*B, C, H, W)`, T
    outermost.

    BrainCog's `ttfs` and `phase` read a device that the class does not have, and `phase` loses white (1.0 overflows
    its eight bits). The codes are the same otherwise: rate, ttfs and phase expect intensities in 0 to 1.

    Args:
        step: number of steps T.
        encode_type: "direct" repeats the image, "rate" draws Bernoulli spikes, "ttfs" gives one spike whose time and
            height
            (1/(t+1)) fall with the intensity, "phase" sends the intensity's eight bits, weighted by 1/2^t.
        layer_by_layer: fold time into the batch; else the result is `(T, B, C, H, W)`.
    """

    def __init__(self, step: int, encode_type: str = "direct", layer_by_layer: bool = True):
        if encode_type not in ENCODINGS:
            raise unknown("encoding", encode_type, ENCODINGS)
        super().__init__(step, encode_type, layer_by_layer=layer_by_layer)

    @torch.no_grad()
    def rate(self, inputs: Tensor) -> Tensor:
        """Draw a spike at each step with the intensity as its probability: `(T, B, C, H, W)`."""
        return (inputs > torch.rand(self.step, *inputs.shape, device=inputs.device)).to(inputs.dtype)

    @torch.no_grad()
    def ttfs(self, inputs: Tensor) -> Tensor:
        """Fire once, at the step `t` with `T - t - 1 < T * intensity <= T - t`, with height 1/(t+1); 0 never
        fires."""
        left = self.step - torch.arange(self.step, device=inputs.device).view(-1, *[1] * inputs.dim())
        level = inputs * self.step
        return ((level <= left) & (level > left - 1)) / (self.step - left + 1).to(inputs.dtype)

    @torch.no_grad()
    def phase(self, inputs: Tensor) -> Tensor:
        """Send bit 7 - t % 8 of the intensity at step t, with weight 1/2^(t % 8)."""
        phase = (torch.arange(self.step, device=inputs.device) % 8).view(-1, *[1] * inputs.dim())
        bits = (inputs * 256).long().clamp(0, 255) >> (7 - phase) & 1
        return bits * torch.pow(2.0, -phase).to(inputs.dtype)
