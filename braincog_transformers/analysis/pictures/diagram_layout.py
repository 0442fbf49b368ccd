"""Place the boxes of a diagram row by row and route the lines between them; lengths are hundredths of an inch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from .architecture import Box

__all__ = ["GAP", "RADIUS", "SMALL", "TEXT", "Layout", "arrange", "box_size", "is_circle", "text_width", "way"]

TEXT, SMALL = 8.5, 7.5
"""Sizes of type in points."""
GAP, TRACK, RADIUS = 17, 11, 9


@dataclass
class Edge:
    """A line from one box (-1: the entrance of the panel) to another, beside the boxes in between."""

    source: int
    target: int
    back: bool = False
    track: float | None = None


@dataclass
class Layout:
    """Boxes of a part in rows; x grows to the right of the middle, y downwards from the entrance."""

    boxes: list[Box]
    ranks: dict[int, int]
    edges: list[Edge]
    sizes: list[tuple[float, float]]
    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    depth: float = 0.0

    def extent(self) -> tuple[float, float]:
        """Return the left and the right end."""
        spans = [(x - w / 2, x + w / 2) for x, (w, _) in zip(self.x, self.sizes, strict=True)]
        tracks = [edge.track for edge in self.edges if edge.track is not None]
        return min([a for a, _ in spans] + tracks), max([b for _, b in spans] + tracks)


@cache  # a sheet asks for each line several times
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Measure a line of type of `size` points."""
    if not text:
        return 0.0
    properties = FontProperties(weight="bold" if bold else "normal")
    return float(TextPath((0, 0), text, size=size, prop=properties).get_extents().width) * 100 / 72


def is_circle(box: Box) -> bool:
    """Say whether a box is drawn as a circle around its sign."""
    return box.role == "join" and len(box.head) == 1


def box_size(box: Box) -> tuple[float, float]:
    """Return the width and height that a box needs."""
    if is_circle(box):
        return 2 * RADIUS, 2 * RADIUS
    width = max(text_width(box.head, TEXT), text_width(box.detail, SMALL)) + 14
    return max(width, 60), 33 if box.detail else 20


def _edges(boxes: Sequence[Box]) -> list[Edge]:
    """List all connections; those that close a loop over steps are marked, found depth first from the entrance and
    from boxes that read nothing, as learnt constants do."""
    readers: dict[int, list[int]] = {}
    for target, box in enumerate(boxes):
        for source in box.sources:
            readers.setdefault(source, []).append(target)
    edges, path, done = [], set(), set()

    def visit(place: int) -> None:
        path.add(place)
        for target in readers.get(place, []):
            edges.append(Edge(place, target, back=target in path))
            if target not in path | done:
                visit(target)
        path.discard(place)
        done.add(place)

    for place in (-1, *(place for place, box in enumerate(boxes) if not box.sources)):
        visit(place)
    return edges


def _ranks(count: int, edges: Sequence[Edge]) -> dict[int, int]:
    """Return for each box the length of the longest way from the first row, and -1 for the entrance; what reads nothing
    stands right above its first reader."""
    ranks = {**dict.fromkeys(range(count), 0), -1: -1}
    for _ in range(count):
        for edge in edges:
            if not edge.back:
                ranks[edge.target] = max(ranks[edge.target], ranks[edge.source] + 1)
    for constant in set(range(count)) - {edge.target for edge in edges}:
        readers = [ranks[edge.target] for edge in edges if edge.source == constant]
        ranks[constant] = max(0, min(readers, default=1) - 1)
    return ranks


def arrange(boxes: Sequence[Box]) -> Layout:
    """Place boxes row by row below what they read, branches side by side, then route long lines around them."""
    edges = _edges(boxes)
    layout = Layout(list(boxes), _ranks(len(boxes), edges), edges, [box_size(box) for box in boxes])
    layout.x, layout.y = [0.0] * len(boxes), [0.0] * len(boxes)
    y = GAP * 1.4
    for rank in range(max(layout.ranks.values()) + 1):
        row = [i for i, r in layout.ranks.items() if r == rank]
        _place_row(layout, row)
        height = max(layout.sizes[i][1] for i in row)
        for i in row:
            layout.y[i] = y + height / 2
        y += height + GAP
    layout.depth = y
    ranks = layout.ranks
    for edge in sorted(edges, key=lambda e: abs(ranks[e.target] - ranks[e.source])):
        if edge.back or ranks[edge.target] - ranks[edge.source] > 1:
            edge.track = _free_track(layout, edge)
    return layout


def _place_row(layout: Layout, row: list[int]) -> None:
    """Put each box of a row below the middle of what it reads right above, forks side by side, none overlapping."""
    wished = {}
    for i in row:
        near = [edge.source for edge in layout.edges
                if edge.target == i and not edge.back and layout.ranks[edge.source] == layout.ranks[i] - 1]  # fmt: skip
        wished[i] = sum(layout.x[s] if s >= 0 else 0.0 for s in near) / max(len(near), 1)
    row = sorted(row, key=lambda i: wished[i])
    gaps = [(layout.sizes[a][0] + layout.sizes[b][0]) / 2 + 12 for a, b in pairwise(row)]
    places = [0.0]
    for gap, (before, this) in zip(gaps, pairwise(row), strict=True):
        places.append(places[-1] + max(gap, wished[this] - wished[before]))
    shift = sum(wished[i] for i in row) / len(row) - sum(places) / len(row)
    for i, place in zip(row, places, strict=True):
        layout.x[i] = place + shift


def _free_track(layout: Layout, edge: Edge) -> float:
    """Find the nearest vertical that meets no box and no other line between both ends."""
    low, high = sorted((layout.ranks[edge.source], layout.ranks[edge.target]))
    between = range(low, high + 1) if edge.back else range(low + 1, high)
    blocked = [(x - w / 2 - 7, x + w / 2 + 7)
               for i, (x, (w, _)) in enumerate(zip(layout.x, layout.sizes, strict=True))
               if layout.ranks[i] in between]  # fmt: skip
    for other in layout.edges:
        ends = sorted((layout.ranks[other.source], layout.ranks[other.target]))
        if other.track is not None and other.source != edge.source and ends[0] < high and ends[1] > low:
            blocked.append((other.track - TRACK + 1, other.track + TRACK - 1))
    start = layout.x[edge.source] if edge.source >= 0 else 0.0
    candidates = [start] + [start + sign * TRACK / 2 * i for i in range(1, 300) for sign in (-1, 1)]
    return next(x for x in candidates if not any(a < x < b for a, b in blocked))


def way(layout: Layout, edge: Edge) -> list[tuple[float, float]]:
    """Return the corners of a line."""
    start_x, start_y = 0.0, 0.0
    if edge.source >= 0:
        start_x = layout.x[edge.source]
        start_y = layout.y[edge.source] + layout.sizes[edge.source][1] / 2
    end_x, end_y = layout.x[edge.target], layout.y[edge.target]
    width, height = layout.sizes[edge.target]
    top, circle = end_y - height / 2, is_circle(layout.boxes[edge.target])
    if edge.track is None:
        if abs(start_x - end_x) < (1 if circle else 10):  # straight, although a little beside the middle
            return [(start_x, start_y), (start_x, top)]
        turn = top - GAP * 0.6  # a row is as high as its highest box: turn right above the target
        return [(start_x, start_y), (start_x, turn), (end_x, turn), (end_x, top)]
    corners, turn = [(start_x, start_y)], start_y + GAP * 0.4
    if abs(edge.track - start_x) >= 1:
        corners += [(start_x, turn), (edge.track, turn)]
    if abs(edge.track - end_x) < (1 if edge.back or circle else width / 2 - 4):
        return [*corners, (edge.track, top)]
    side = end_x + (width / 2 if edge.track > end_x else -width / 2)
    return [*corners, (edge.track, end_y), (side, end_y)]
