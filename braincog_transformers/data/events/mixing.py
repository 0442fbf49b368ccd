"""Mixers of event batches on soft targets: MixUp, CutMix and EventMix by BrainCog's rules, never NaN.

Each sample is mixed, with a probability, with another one of its batch (the batch in random order). All draws come
from the generator of the call.
"""

from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from numpy.random import Generator, default_rng
from torch import Tensor
from torch.nn.functional import one_hot

__all__ = ["CutMix", "EventMix", "MixUp"]


@dataclass(eq=False)
class _Mixer:
    """Mix a batch `rounds` times; a mixer says how in `_mix`.

    Args:
        num_classes: K.
        beta: of the symmetric Beta distribution of the kept share; 0 or less mixes nothing.
        prob: share of the samples that are mixed in each round.
        rounds: how often a sample is mixed.
        noise: upper limit of the share of cells that get one more event after each mix.
    """

    num_classes: int
    _: KW_ONLY
    beta: float = 2.0
    prob: float = 0.5
    rounds: int = 1
    noise: float = 0.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.num_classes < 1 or self.rounds < 1:
            got = f"{self.num_classes}, {self.rounds}"
            raise ValueError(f"{name}: num_classes and rounds must be 1 or more; got {got}")
        if not 0 <= self.prob <= 1 or not 0 <= self.noise <= 1:
            raise ValueError(f"{name}: prob and noise must be from 0 to 1; got {self.prob}, {self.noise}")

    def __call__(self, x: Tensor, target: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return mixed frames and soft targets.

        Args:
            x: frames (B, T, P, H, W), not changed.
            target: labels (B,) or soft targets (B, K).
            generator: of every draw; by default torch's own.

        Returns:
            frames (B, T, P, H, W) and soft targets (B, K) float32, each row summing to 1.
        """
        if x.dim() != 5:
            raise ValueError(f"{type(self).__name__}: event frames must be (B, T, P, H, W); got {tuple(x.shape)}")
        soft = target.float() if target.dim() == 2 else one_hot(target, self.num_classes).float()
        device = generator.device if generator is not None else "cpu"
        seed = torch.randint(2**63 - 1, (), generator=generator, device=device).item()
        rng = default_rng(seed)  # NumPy draws from the Beta distribution with a generator, torch doesn't
        for _ in range(self.rounds if self.beta > 0 else 0):
            chosen = np.flatnonzero(rng.random(len(x)) < self.prob)
            if not len(chosen):
                continue
            partner = _on(x, rng.permutation(len(x))[chosen])
            kept = _on(x, rng.beta(self.beta, self.beta, len(chosen)))
            own = _on(x, chosen)
            mixed, weight = self._mix(x[own], x[partner], kept, rng)
            weight = weight.unsqueeze(1)
            x = x.index_copy(0, own, self._noisy(mixed, rng) if self.noise else mixed)
            soft = soft.index_copy(0, own, soft[own] * weight + soft[partner] * (1 - weight))
        return x, soft

    def _mix(self, x: Tensor, other: Tensor, kept: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """Return mixed frames and the weight (B,) of each sample's own label."""
        raise NotImplementedError

    def _noisy(self, x: Tensor, rng: Generator) -> Tensor:
        share = _on(x, rng.uniform(0, self.noise, len(x)))
        draws = _on(x, rng.random(tuple(x.shape), dtype="float32"))
        return x + (draws < share.view(-1, 1, 1, 1, 1)).to(x.dtype)


def _on(x: Tensor, drawn: np.ndarray) -> Tensor:
    """Return what was drawn on the device of `x`, fractions as float32."""
    drawn = torch.from_numpy(drawn)
    return drawn.to(x.device, torch.float32 if drawn.is_floating_point() else None)


class MixUp(_Mixer):
    """Add the frames and the labels of two samples in the same proportion."""

    def _mix(self, x: Tensor, other: Tensor, kept: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        share = kept.view(-1, 1, 1, 1, 1).to(x.dtype)
        return x * share + other * (1 - share), kept


class CutMix(_Mixer):
    """Replace one rectangle, the same in all frames; the labels count by area."""

    def _mix(self, x: Tensor, other: Tensor, kept: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        side = (1 - kept).sqrt()
        rows = self._stretch(height, side, rng)
        columns = self._stretch(width, side, rng)
        inside = rows.unsqueeze(2) & columns.unsqueeze(1)
        area = inside.sum((1, 2)) / (height * width)
        return torch.where(inside[:, None, None], other, x), 1 - area

    @staticmethod
    def _stretch(length: int, share: Tensor, rng: Generator) -> Tensor:
        """Return (B, length): a stretch of this share about a random centre, clipped at the border."""
        half = (share * length).long().unsqueeze(1) // 2
        centre = _on(share, rng.integers(0, length, len(share))).unsqueeze(1)
        place = torch.arange(length, device=share.device)
        return (place >= centre - half) & (place < centre + half)


@dataclass(eq=False)
class EventMix(_Mixer):
    """Replace the cells where a random sum of Gaussians in time and space is highest; the labels count by events.

    With r1 and r2 the share of either sample's events inside of the mask, a sample's own label weighs
    1 - r2 / (1 - r1 + r2); where that is undefined, because a sample holds no events, it weighs the kept share of
    the cells.

    Args:
        num_classes: K.
        beta, prob, rounds, noise: as of every mixer.
        components: number of Gaussians, None for 2 to 4.
    """

    _: KW_ONLY
    components: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components is not None and self.components < 1:
            raise ValueError(f"EventMix: components must be 1 or more; got {self.components}")

    def _mix(self, x: Tensor, other: Tensor, kept: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        inside = self._masks((x.shape[1], *x.shape[-2:]), kept, rng).unsqueeze(2)
        return torch.where(inside, other, x), self._weight(x, other, inside)

    def _masks(self, shape: tuple[int, int, int], kept: Tensor, rng: Generator) -> Tensor:
        """Return (B, T, H, W): True on the 1 - kept share of a sample's cells with the highest values."""
        counts = rng.integers(2, 5, len(kept)) if self.components is None else np.full(len(kept), self.components)
        drawn = (len(kept), counts.max())
        # Gaussians beyond a sample's own number weigh nothing
        weight = rng.random(drawn) * (np.arange(drawn[1]) < counts[:, None])
        factors = []
        for length in shape:
            centre = rng.integers(0, length, drawn)[..., None]
            width = np.maximum(rng.random(drawn), 0.1)[..., None] * length / 2
            factors.append(_on(kept, np.exp(-(((np.arange(length) - centre) / width) ** 2) / 2)))
        factors[0] = factors[0] * _on(kept, weight).unsqueeze(2)
        heights = torch.einsum("bct,bch,bcw->bthw", factors).flatten(1)
        lowest = (kept.double() * heights.shape[1]).long().tolist()
        limits = [row.kthvalue(k).values if k else row.new_tensor(-1.0) for row, k in zip(heights, lowest, strict=True)]
        return (heights > torch.stack(limits).unsqueeze(1)).view(-1, *shape)

    @staticmethod
    def _weight(x: Tensor, other: Tensor, inside: Tensor) -> Tensor:
        def share(frames: Tensor) -> Tensor:
            events = frames.float().abs()  # a voxel grid has signs
            return (events * inside).sum((1, 2, 3, 4)) / events.sum((1, 2, 3, 4))

        r1, r2 = share(x), share(other)
        weight = 1 - r2 / (1 - r1 + r2)
        area = inside.expand_as(x).float().mean((1, 2, 3, 4))
        return torch.where(torch.isfinite(weight), weight, 1 - area).clamp(0, 1)
