"""Search for architectures without training: an evolution among networks within a window of sizes.

    from braincog_transformers.search import SPACES, search
    best = search(SPACES["small"], (11, 12))[0]
    timm.create_model("autost", **best.architecture.arguments())

Source: Wang et al., AutoST (ICASSP 2024, arXiv 2307.00293); official code AlexandreWANG915/AutoST at 7e7ca45. A
candidate's score is its operations. Sizes and operations come from formulas, so no network is built, and nothing here
imports torch.

Left out: the official score's second term, an estimate of energy from activation patterns. It is off by default there,
and the module that computes it was not released.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import accumulate, pairwise
from math import gcd, isfinite, prod
from typing import Any, NamedTuple

from .errors import UserError, quoted

__all__ = ["SPACES", "Architecture", "Evolution", "Found", "Space", "Task", "macs", "parameters", "search"]

_STEMS = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4}
"""How many of a stem's four convolutions are pooled, by the side of a patch."""
_DRAWS = 50
"""How often two parents are drawn until their depths agree."""
_TRIALS = 10
"""How many candidates are made for each that is wanted; most are known already, or too small or large."""
_MOST_SUMS = 20_000_000
"""Additions that count the sizes of a space; more take over ten seconds."""


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True)
class Space:
    """What a search chooses from.

    Args:
        embed_dim: widths C, multiples of 8 and of the heads.
        depth: numbers of blocks, 1 to 64.
        mlp_ratio: widths of a block's MLP over C.
        num_heads: attention heads of a block.

    Raises:
        UserError: for a value that no network can have, or one that is there twice.
    """

    embed_dim: Sequence[int]
    depth: Sequence[int]
    mlp_ratio: Sequence[float]
    num_heads: Sequence[int]

    def __post_init__(self):
        for name, values in vars(self).items():
            if not 1 <= len(values) <= 64 or len(set(values)) < len(values):
                raise UserError(f"search space: {name} needs 1 to 64 different values; got {quoted(list(values), 120)}")
        ends = {"embed_dim": 2**16, "depth": 64, "num_heads": 2**16}
        for name, high in ends.items():
            for value in getattr(self, name):
                if not _whole(value, 1, high):
                    raise UserError(f"search space: {name} must be whole numbers from 1 to {high}; got {quoted(value)}")
        for ratio in self.mlp_ratio:
            if not (isinstance(ratio, (int, float)) and 1 <= min(self.embed_dim) * ratio <= 2**20):
                dim = min(self.embed_dim)
                raise UserError(
                    f"search space: mlp_ratio times embed_dim must be 1 to {2**20}; got {quoted(ratio)} times {dim}"
                )
        for divisor in (8, *self.num_heads):
            if unfit := [dim for dim in self.embed_dim if dim % divisor]:
                whose = "" if divisor == 8 else " (num_heads)"
                raise UserError(f"search space: embed_dim must be multiples of {divisor}{whose}; got {unfit[0]}")


SPACES = {
    "tiny": Space((192, 256, 320, 384), range(1, 11), (3, 4, 5), (4, 8)),
    "small": Space((256, 320, 384, 448, 512), range(2, 13), (3, 4, 5), (4, 8)),
    "base": Space((384, 448, 512, 576, 640, 704, 768), range(4, 16), (3, 4, 5, 6), (4, 8)),
}
"""The search spaces of the official code."""


@dataclass(frozen=True)
class Task:
    """What a network reads and answers; the size and the operations depend on it.

    Args:
        img_size: height and width of the input, pixels, multiples of the patch.
        in_chans: channels of the input.
        num_classes: classes K.
        patch_size: side of a token, pixels: 1, 2, 4, 8 or 16.

    Raises:
        UserError: for an input that no network takes.
    """

    img_size: tuple[int, int] = (32, 32)
    in_chans: int = 3
    num_classes: int = 10
    patch_size: int = 4

    def __post_init__(self):
        if self.patch_size not in _STEMS:
            raise UserError(f"search: patch_size must be 1, 2, 4, 8 or 16; got {quoted(self.patch_size)}")
        for side in self.img_size:
            if not _whole(side, 1, 2**16) or side % self.patch_size:
                raise UserError(
                    f"search: img_size must be multiples of patch_size={self.patch_size}; got {quoted(side)}"
                )
        for name, high in {"in_chans": 2**16, "num_classes": 2**24}.items():
            if not _whole(getattr(self, name), 1, high):
                raise UserError(f"search: {name} must be a whole number from 1 on; got {quoted(getattr(self, name))}")


@dataclass(frozen=True)
class Evolution:
    """How a search goes on; the defaults are those of the official code, except for the seed, which is 0 there.

    Args:
        population: candidates of a generation; random ones fill it up.
        generations: how many.
        top_k: the best so far, which are parents.
        mutations, crossovers: how many of each are made of the parents for a generation.
        layer_prob: chance that a mutation draws a block's ratio, or its heads, anew.
        size_prob: chance that it draws the depth, or the width, anew.
        seed: of all that is drawn.

    Raises:
        UserError: for a number that makes no sense.
    """

    population: int = 50
    generations: int = 20
    top_k: int = 10
    mutations: int = 25
    crossovers: int = 25
    layer_prob: float = 0.2
    size_prob: float = 0.4
    seed: int = 42

    def __post_init__(self):
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.type is float:
                if not 0 <= value <= 1:
                    raise UserError(f"search: {name} must be a probability, 0 to 1; got {quoted(value)}")
                continue
            low, high = int(name in ("population", "generations", "top_k")), 2**63 - 1 if name == "seed" else 100_000
            if not _whole(value, low, high):
                raise UserError(f"search: {name} must be a whole number from {low} to {high}; got {quoted(value)}")


class Architecture(NamedTuple):
    """One network of a space.

    Args:
        embed_dim: width C.
        num_heads: heads of each block.
        mlp_ratio: width of each block's MLP over C.
    """

    embed_dim: int
    num_heads: tuple[int, ...]
    mlp_ratio: tuple[float, ...]

    @property
    def depth(self) -> int:
        return len(self.num_heads)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `AutoST`."""
        return {"depth": self.depth, **self._asdict()}


def _stem_macs(dim: int, task: Task) -> int:
    """Return the multiply-accumulates of a step in the stem: five 3x3 convolutions, the last of them on the tokens."""
    widths = (task.in_chans, dim // 8, dim // 4, dim // 2, dim)
    pooled = _STEMS[task.patch_size]
    halved = [max(0, i - (4 - pooled)) for i in range(5)]  # poolings in front of each convolution
    sizes = [prod(side >> times for side in task.img_size) for times in halved]
    chans = [*pairwise(widths), (dim, dim)]
    return sum(9 * pixels * before * after for pixels, (before, after) in zip(sizes, chans, strict=True))


def parameters(architecture: Architecture, task: Task) -> int:
    """Return the exact number of trainable parameters."""
    dim, depth = architecture.embed_dim, architecture.depth
    return _fixed_parameters(dim, depth, task) + _hidden(architecture) * (2 * dim + 3)


def _fixed_parameters(dim: int, depth: int, task: Task) -> int:
    """Count what does not depend on the MLPs' widths."""
    stem = 9 * (task.in_chans * dim // 8 + 53 * dim**2 // 32) + 23 * dim // 4 + 3
    return stem + depth * (4 * dim**2 + 15 * dim + 7) + (dim + 1) * task.num_classes


def _hidden(architecture: Architecture) -> int:
    """Return the widths of all MLPs together."""
    return sum(int(architecture.embed_dim * ratio) for ratio in architecture.mlp_ratio)


def macs(architecture: Architecture, task: Task) -> int:
    """Return the multiply-accumulates of one time step, as if every neuron fired.

    The attention counts as `(Q K^T) V`; the heads change nothing.
    """
    dim, tokens = architecture.embed_dim, prod(task.img_size) // task.patch_size**2
    attention = architecture.depth * (4 * tokens * dim**2 + 2 * tokens**2 * dim)
    return _stem_macs(dim, task) + attention + 2 * tokens * dim * _hidden(architecture) + dim * task.num_classes


class Found(NamedTuple):
    """A candidate that a search has scored.

    Args:
        architecture: the network.
        parameters: its trainable parameters.
        macs: its multiply-accumulates of one time step, which are its score.
    """

    architecture: Architecture
    parameters: int
    macs: int


class _Window:
    """The architectures of a space that have a number of parameters within limits.

    Args:
        space, task: see `search`.
        limits: smallest and largest number of parameters, in millions.

    Attributes:
        count: how many there are.
    """

    def __init__(self, space: Space, limits: Sequence[float], task: Task):
        self.space, self.task, self.limits = space, task, limits
        if sum(map(self._additions, space.embed_dim)) > _MOST_SUMS:
            raise UserError(
                "search space: mlp_ratio has so many values that their sums are too many to count; name fewer, or "
                "multiples of one ratio"
            )
        self._ways = {dim: self._count_widths(dim) for dim in space.embed_dim}
        heads, ratios = len(space.num_heads), len(space.mlp_ratio)
        inside = {
            (dim, depth, hidden): ways
            for dim, by_depth in self._ways.items()
            for depth in space.depth
            for hidden, ways in by_depth[depth].items()
            if self._fits(_fixed_parameters(dim, depth, task) + hidden * (2 * dim + 3))
        }
        if not inside:
            raise UserError(self._nothing())
        self.count = sum(ways * heads**depth for (_, depth, _), ways in inside.items())
        self._shapes = list(inside)
        self._weights = list(accumulate(ways / ratios**depth for (_, depth, _), ways in inside.items()))

    def _fits(self, count: int) -> bool:
        return self.limits[0] <= count / 1e6 <= self.limits[1]

    def _additions(self, dim: int) -> int:
        """Return the most additions that `_count_widths` may need."""
        depth, widths = max(self.space.depth), [int(dim * ratio) for ratio in self.space.mlp_ratio]
        apart = gcd(*(width - widths[0] for width in widths)) or 1
        sums = min(depth * (max(widths) - min(widths)), int(self._most(dim))) // apart + 1
        return depth * len(widths) * sums

    def _most(self, dim: int) -> float:
        """Return what the widths of the MLPs together can't exceed within the window."""
        return self.limits[1] * 1e6 / (2 * dim + 3)

    def _count_widths(self, dim: int) -> list[dict[int, int]]:
        """Return for each depth from 0 on how many sequences of ratios there are, by the widths of the MLPs together;
        sums that are too large for the window are left out."""
        most = self._most(dim)
        found = [{0: 1}]
        for _ in range(max(self.space.depth)):
            sums: dict[int, int] = {}
            for hidden, ways in found[-1].items():
                for ratio in self.space.mlp_ratio:
                    if (total := hidden + int(dim * ratio)) <= most:
                        sums[total] = sums.get(total, 0) + ways
            found.append(sums)
        return found

    def _nothing(self) -> str:
        """Say which sizes there are."""
        space, ends = self.space, []
        for end in (min, max):
            dim, depth, ratio = end(space.embed_dim), end(space.depth), end(space.mlp_ratio)
            ends.append(parameters(Architecture(dim, (1,) * depth, (ratio,) * depth), self.task) / 1e6)
        low, high = self.limits
        between = ", and none in between fits" if ends[0] < low and high < ends[1] else ""
        return (
            f"no candidate of the search space has {low:g} to {high:g} million parameters: the smallest has "
            f"{ends[0]:.6g}, the largest {ends[1]:.6g}{between}; choose another window or space"
        )

    def __contains__(self, architecture: Architecture) -> bool:
        return self._fits(parameters(architecture, self.task))

    def draw(self, rng: random.Random) -> Architecture:
        """Draw width, depth, ratios and heads, each uniformly, on condition that the size is within the limits."""
        dim, depth, hidden = rng.choices(self._shapes, cum_weights=self._weights)[0]
        by_depth, choices, ratios = self._ways[dim], self.space.mlp_ratio, []
        for left in reversed(range(depth)):
            ways = [by_depth[left].get(hidden - int(dim * ratio), 0) for ratio in choices]
            ratios += rng.choices(choices, ways)
            hidden -= int(dim * ratios[-1])
        heads = tuple(rng.choice(self.space.num_heads) for _ in range(depth))
        return Architecture(dim, heads, tuple(ratios))


def _mutate(parents: Sequence[Architecture], space: Space, how: Evolution, rng: random.Random) -> Architecture:
    """Change a parent: with `size_prob` its depth, blocks appended at random or cut off, each block's ratio and heads
    with `layer_prob`, and with `size_prob` its width."""
    dim, heads, ratios = rng.choice(parents)
    depth = rng.choice(space.depth) if rng.random() < how.size_prob else len(heads)

    def changed(values: Sequence[Any], choices: Sequence[Any]) -> tuple:
        kept = [*values[:depth], *(rng.choice(choices) for _ in range(depth - len(values)))]
        return tuple(rng.choice(choices) if rng.random() < how.layer_prob else value for value in kept)

    ratios, heads = changed(ratios, space.mlp_ratio), changed(heads, space.num_heads)
    dim = rng.choice(space.embed_dim) if rng.random() < how.size_prob else dim
    return Architecture(dim, heads, ratios)


def _cross(parents: Sequence[Architecture], rng: random.Random) -> Architecture | None:
    """Take each value from either of two parents of one depth; None if no two were drawn. The official code then cuts
    the longer one, and gets a child that is no network."""
    for _ in range(_DRAWS):
        one, other = rng.choice(parents), rng.choice(parents)
        if one.depth == other.depth:
            dim = rng.choice((one.embed_dim, other.embed_dim))
            heads = tuple(map(rng.choice, zip(one.num_heads, other.num_heads, strict=True)))
            return Architecture(dim, heads, tuple(map(rng.choice, zip(one.mlp_ratio, other.mlp_ratio, strict=True))))
    return None


def search(
    space: Space,
    window: Sequence[float],
    task: Task = Task(),
    how: Evolution = Evolution(),
    *,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Found]:
    """Search a space for the networks with the highest score within a window of sizes.

    Args:
        space: what is chosen from.
        window: smallest and largest number of trainable parameters, in millions.
        task: input and classes.
        how: numbers of the evolution.
        progress: wraps the numbers of the generations, as `tqdm` does.

    Returns:
        All candidates that were scored, the best first. Several may have one score and size.

    Raises:
        UserError: for a window without any candidate, which is found out before the search.
    """
    if len(window) != 2 or not all(isfinite(end) and end > 0 for end in window) or window[0] > window[1]:
        raise UserError(
            "search: the window must be the smallest and the largest number of parameters in millions, above 0; got "
            f"{quoted(list(window), 100)}"
        )
    inside, rng = _Window(space, window, task), random.Random(how.seed)
    scores: dict[Architecture, int] = {}

    def collect(make: Callable[[], Architecture | None], wanted: int) -> list[Architecture]:
        """Make candidates until as many as wanted are new and within the window, and score these."""
        found: list[Architecture] = []
        for _ in range(_TRIALS * wanted):
            if len(found) == wanted or len(scores) == inside.count:
                break
            candidate = make()
            if candidate is not None and candidate not in scores and candidate in inside:
                scores[candidate] = macs(candidate, task)
                found.append(candidate)
        return found

    best: list[Architecture] = []
    population = collect(partial(inside.draw, rng), how.population)
    for _ in progress(range(how.generations)):
        best = sorted([*best, *population], key=scores.__getitem__, reverse=True)[: how.top_k]
        population = collect(partial(_mutate, best, space, how, rng), how.mutations)
        population += collect(partial(_cross, best, rng), how.crossovers)
        population += collect(partial(inside.draw, rng), how.population - len(population))
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    return [Found(one, parameters(one, task), scores[one]) for one in ranked]
