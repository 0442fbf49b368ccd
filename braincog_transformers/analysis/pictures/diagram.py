"""Draw the architecture of a network from the network: its parts from top to bottom, and the inside of each kind.

Nothing is drawn from knowledge of a paper. Boxes, branches, sums, shapes, and whether spikes or numbers flow, are
what one forward pass showed; see `dataflow` and `architecture`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, permutations
from pathlib import Path

from matplotlib.patches import Circle, FancyBboxPatch
from torch import nn

from . import plots
from .architecture import Box, Part, describe_architecture
from .dataflow import KINDS, Call, least
from .diagram_layout import GAP, RADIUS, SMALL, TEXT, Layout, arrange, box_size, is_circle, text_width, way

__all__ = ["draw_architecture"]

# Lengths are hundredths of an inch.
WIDTH, LEGEND = 960, 660
"""Of the widest sheet, and what the legend needs."""
MARGIN, TITLE = 14, 12.0
INLINE = 3
"""A chain of at most this many boxes gets no panel."""
FLOW = {"silent": "#c2c6ce", "binary": plots.RED, "ternary": plots.AMBER, "integer": "#6b717d", "real": "#a9aeb8"}
FLOW_NAMES = {
    "binary": "spikes: zeros and ones",
    "ternary": "spikes with a sign: -1, 0 and 1",
    "integer": "whole numbers",
    "real": "real numbers",
    "silent": "zero throughout",
}
FILL = {
    "neuron": ("#fbe9e8", plots.RED),
    "weighted": ("#e8f0f8", plots.BLUE),
    "product": ("#fbf2e0", plots.AMBER),
    "join": ("white", plots.INK),
    "other": ("white", plots.GREY),
}
ROLES = {
    "weighted": "weights",
    "neuron": "neurons, \u03b8: threshold",
    "product": "product or sum of spikes",
    "join": "sum or product",
}


class _Canvas:
    """A sheet on which y grows downwards."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = plots.new_figure(width / 100, height / 100)
        self.figure.set_layout_engine("none")
        self.ax = self.figure.add_axes((0, 0, 1, 1))
        self.ax.set(xlim=(0, width), ylim=(height, 0))
        self.ax.set_axis_off()

    def text(self, x: float, y: float, text: str, size: float = TEXT, **style) -> None:
        self.ax.text(x, y, text, fontsize=size, **{"ha": "center", "va": "center", "color": plots.INK, **style})

    def rounded(self, x: float, y: float, width: float, height: float, fill: str, edge: str, zorder: int = 3) -> None:
        shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=4", zorder=zorder)
        shape.set(facecolor=fill, edgecolor=edge, linewidth=0.9)
        self.ax.add_patch(shape)

    def circle(self, x: float, y: float, text: str, fill: str, ink: str, edge: str) -> None:
        self.ax.add_patch(Circle((x, y), RADIUS, facecolor=fill, edgecolor=edge, linewidth=0.9, zorder=3))
        self.text(x, y, text, TEXT + 1, color=ink, weight="bold", zorder=4, va="center_baseline")

    def line(self, points: Sequence[tuple[float, float]], kind: str, arrow: bool = True) -> None:
        """Draw what flows along a line, an arrow at its end."""
        wide = kind in ("binary", "ternary", "integer")
        style = {"color": FLOW[kind], "linewidth": 1.9 if wide else 1.2, "linestyle": ":" if kind == "silent" else "-"}
        self.ax.plot(*zip(*points, strict=True), zorder=2, solid_capstyle="butt", solid_joinstyle="round", **style)
        if arrow:
            (x0, y0), (x1, y1) = points[-2:]
            dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
            tip, back, side = (x1, y1), (x1 - 5 * dx, y1 - 5 * dy), (3 * dy, 3 * dx)
            corners = [tip, (back[0] + side[0], back[1] + side[1]), (back[0] - side[0], back[1] - side[1])]
            self.ax.fill(*zip(*corners, strict=True), color=FLOW[kind], linewidth=0, zorder=2.5)

    def box(self, box: Box, x: float, y: float, size: tuple[float, float]) -> None:
        """Draw a box around its middle."""
        fill, edge = FILL[box.role]
        width, height = size
        if is_circle(box):
            self.circle(x, y, box.head, fill, plots.INK, edge)
            return
        self.rounded(x - width / 2, y - height / 2, width, height, fill, edge)
        self.text(x, y - 7 * bool(box.detail), box.head, zorder=4)
        if box.detail:
            self.text(x, y + 8, box.detail, SMALL, color=plots.GREY, zorder=4)


def _draw_graph(canvas: _Canvas, layout: Layout, x: float, y: float, entering: str) -> None:
    """Draw a part's boxes and lines, the entrance at (x, y)."""
    for i, box in enumerate(layout.boxes):
        canvas.box(box, x + layout.x[i], y + layout.y[i], layout.sizes[i])
    for edge in layout.edges:
        kind = layout.boxes[edge.source].calls[-1].kind if edge.source >= 0 else entering
        points = way(layout, edge)
        canvas.line([(x + a, y + b) for a, b in points], kind)
    end, bottom = x + layout.x[-1], y + layout.y[-1] + layout.sizes[-1][1] / 2
    canvas.line([(end, bottom), (end, y + layout.depth)], layout.boxes[-1].calls[-1].kind)


@dataclass
class _Panel:
    """The inside of one kind of part.

    Args:
        letter: what the cards call it.
        part: the first of its kind.
        entering: what flows into any of the kind.
        layout: of the part's boxes.
        alone: whether no other part of the kind has other sizes.
    """

    letter: str
    part: Part
    entering: str
    layout: Layout
    alone: bool = True

    @property
    def subtitle(self) -> str:
        """Say which part is shown."""
        return self.part.names[0] + ("" if self.alone else "; the others differ in sizes")

    @cached_property
    def size(self) -> tuple[float, float]:
        low, high = self.layout.extent()
        title = text_width(self.part.title, TEXT + 1, bold=True) + 40
        return max(high - low, title, text_width(self.subtitle, SMALL) + 30) + 2 * MARGIN, self.layout.depth + 60


def _panels(source: Call, parts: Sequence[Part]) -> dict[tuple, _Panel]:
    """Make a panel of the first part of each kind that is more than a short chain."""
    panels: dict[tuple, _Panel] = {}
    entering = source.kind
    for part in parts:
        if not _is_inline(part):
            known = panels.get(part.pattern)
            if known is None:
                panels[part.pattern] = _Panel(chr(ord("A") + len(panels)), part, entering, arrange(part.boxes))
            else:
                known.entering = least(known.entering, entering)
                known.alone = False
        entering = part.kind
    return panels


def _is_inline(part: Part) -> bool:
    return len(part.boxes) <= INLINE and not any(box.role == "join" for box in part.boxes)


def _draw_panel(canvas: _Canvas, panel: _Panel, x: float, y: float) -> None:
    width, height = panel.size
    canvas.rounded(x, y, width, height, "#fafbfc", plots.GRID, zorder=0)
    canvas.circle(x + MARGIN + RADIUS, y + 20, panel.letter, plots.INK, "white", plots.INK)
    canvas.text(x + MARGIN + 26, y + 15, panel.part.title, TEXT + 1, ha="left", weight="bold")
    canvas.text(x + MARGIN + 26, y + 29, panel.subtitle, SMALL, ha="left", color=plots.GREY)
    low, high = panel.layout.extent()
    _draw_graph(canvas, panel.layout, x + width / 2 - (low + high) / 2, y + 44, panel.entering)


def _shape(sizes: tuple[int, ...]) -> str:
    return " \u00d7 ".join(map(str, sizes))


def _count(parameters: int) -> str:
    if not parameters:
        return ""
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters / 1e3:.1f} k"


def _card_lines(part: Part) -> tuple[str, str, str, str]:
    """Return title, repetition, names and parameters."""
    count = len(part.names)
    names = part.names[0] if count == 1 else f"{part.names[0]} \u2026 {part.names[-1].rpartition('.')[2]}"
    times, each = (f"\u00d7 {count}", f"{count} \u00d7 ") if count > 1 else ("", "")
    return part.title, times, names, each + _count(part.parameters)


def _card_width(parts: Sequence[Part]) -> float:
    widths = [140.0]
    for title, times, names, each in map(_card_lines, parts):
        widths.append(text_width(title, TEXT, bold=True) + text_width(times, TEXT + 2, bold=True))
        widths.append(text_width(names, SMALL) + text_width(each, SMALL))
    return max(widths) + 56


def _overview_height(parts: Sequence[Part]) -> float:
    rows = [sum(box_size(box)[1] + GAP for box in part.boxes) if _is_inline(part) else 44 + GAP for part in parts]
    return sum(rows) + len(parts) * 14 + 70


def _draw_overview(canvas: _Canvas, source: Call, parts: Sequence[Part], panels: dict, x: float, y: float) -> None:
    """Draw all parts from top to bottom, the shape of what flows beside each line, parameters at the right."""
    card = _card_width(parts)
    middle = x + card / 2
    canvas.text(middle, y, f"input  {_shape(source.shape)}", TEXT, weight="bold")
    y, kind = y + 9, source.kind
    for part in parts:
        if _is_inline(part):
            for box in part.boxes:
                width, height = box_size(box)
                canvas.line([(middle, y), (middle, y + GAP)], kind)
                y += GAP + height
                canvas.box(box, middle, y - height / 2, (width, height))
                kind = box.calls[-1].kind
                if box.role == "weighted":
                    canvas.text(middle + width / 2 + 6, y - height / 2, _count(part.parameters), SMALL, ha="left")
        else:
            canvas.line([(middle, y), (middle, y + GAP)], kind)
            y += GAP
            _draw_card(canvas, part, panels[part.pattern].letter, (x, y), card)
            y, kind = y + 44, part.kind
        canvas.line([(middle, y), (middle, y + 14)], kind, arrow=False)
        canvas.text(middle + 8, y + 11, _shape(part.shape), SMALL, ha="left", color=plots.GREY)
        y += 14
    canvas.line([(middle, y), (middle, y + GAP)], kind)


def _draw_card(canvas: _Canvas, part: Part, letter: str, corner: tuple[float, float], width: float) -> None:
    x, y = corner
    canvas.rounded(x, y, width, 44, "#f1f3f6", plots.GREY)
    canvas.circle(x + 17, y + 22, letter, plots.INK, "white", plots.INK)
    title, times, names, each = _card_lines(part)
    canvas.text(x + 33, y + 14, title, TEXT, ha="left", weight="bold", zorder=4)
    canvas.text(x + width - 8, y + 14, times, TEXT + 2, ha="right", weight="bold", zorder=4)
    canvas.text(x + 33, y + 31, names, SMALL, ha="left", color=plots.GREY, zorder=4)
    canvas.text(x + width - 8, y + 31, each, SMALL, ha="right", zorder=4)


def _pack(panels: Sequence[_Panel], overview: tuple[float, float], top: float) -> tuple[list, float, float]:
    """Place panels beside and below the overview so that the sheet stays low, in reading order where that costs little.

    Args:
        panels: what to place.
        overview: right and lower end of what stands at the left already.
        top: where the first row begins.

    Returns:
        The upper left corners, and the right and the lower end of all.
    """
    best: tuple[list[tuple[float, float]], float, float] = ([], 0.0, 0.0)
    for order in islice(permutations(range(len(panels))), 1000):
        taken = [(MARGIN, *overview)]
        corners = {i: _settle(panels[i].size, taken, top) for i in order}
        right, lowest = max(right for _, right, _ in taken), max(bottom for *_, bottom in taken)
        if not best[0] or lowest < 0.96 * best[2]:
            best = [corners[i] for i in range(len(panels))], right, lowest
    return best


def _settle(size: tuple[float, float], taken: list[tuple[float, float, float]], top: float) -> tuple[float, float]:
    """Take the highest free corner, then the leftmost, and add `(left, right, bottom)` to what is taken."""
    width, height = size
    found = []
    for x in [MARGIN, *(right + MARGIN for _, right, _ in taken)]:
        if x + width <= WIDTH - MARGIN or x == MARGIN:
            above = [bottom + MARGIN for left, right, bottom in taken if left < x + width and x < right]
            found.append((max(above, default=top), x))
    y, x = min(found)
    taken.append((x, x + width, y + height))
    return x, y


def _draw_legend(canvas: _Canvas, kinds: set[str], roles: set[str], x: float, y: float) -> None:
    start = x
    for kind in reversed(KINDS):
        if kind in kinds:
            canvas.line([(x, y), (x + 26, y)], kind)
            canvas.text(x + 32, y, FLOW_NAMES[kind], SMALL, ha="left")
            x += 32 + text_width(FLOW_NAMES[kind], SMALL) + 22
    canvas.text(x, y, "as one forward pass showed", SMALL, ha="left", color=plots.GREY)
    x, y = start, y + 19
    for role, name in ROLES.items():
        if role in roles:
            fill, edge = FILL[role]
            canvas.rounded(x, y - 6, 18, 12, fill, edge)
            canvas.text(x + 24, y, name, SMALL, ha="left")
            x += 24 + text_width(name, SMALL) + 22


def draw_architecture(model: nn.Module, path: str | Path, *, title: str | None = None) -> Path:
    """Draw a network's architecture as one forward pass of a copy shows it.

    At the left all parts with their parameters and the shapes in between, `T x C x H x W` or `T x N x C` (without T
    where all steps share it), equal ones in a row folded; beside it the inside of each kind of part. Lines are coloured
    by what was seen to flow; a fresh network may leave neurons silent.

    Args:
        model: a registered network; it is left as it was.
        path: the PNG to write; an SVG is written beside it.
        title: heading; the network's class by default.

    Returns:
        The PNG's path.
    """
    source, parts = describe_architecture(model)
    panels = _panels(source, parts)
    overview = 2 * MARGIN + _card_width(parts), 56 + _overview_height(parts)
    corners, width, height = _pack(list(panels.values()), overview, 56)
    width, height = max(width, LEGEND), height + 62
    canvas = _Canvas(width + MARGIN, height)
    total = sum(p.numel() for p in model.parameters())
    canvas.text(MARGIN, 24, title or type(model).__name__, TITLE, ha="left", weight="bold")
    canvas.text(width, 24, f"{total / 1e6:.2f} M parameters, T = {model.step}", TEXT, ha="right")
    _draw_overview(canvas, source, parts, panels, MARGIN, 66)
    for panel, (x, y) in zip(panels.values(), corners, strict=True):
        _draw_panel(canvas, panel, x, y)
    boxes = [box for part in parts for box in part.boxes]
    kinds = {call.kind for box in boxes for call in box.calls} | {source.kind}
    _draw_legend(canvas, kinds, {box.role for box in boxes}, MARGIN, height - 36)
    return plots.save(canvas.figure, path)
