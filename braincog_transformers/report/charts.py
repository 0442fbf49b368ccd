"""Charts as inline SVG: curves over epochs, and accuracy against energy. Colours come from the page's theme."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .formats import significant
from .markup import Markup, join, tag

__all__ = ["Curve", "Point", "colour", "line_chart", "scatter_chart", "series", "ticks"]

SERIES = 6
"""So many colours the theme has; further series repeat them, dashed."""
_FONT, _LETTER = 12, 0.62  # of a label: its size, and the width of a letter as a share of it, on the safe side
_MOST_DOTS = 60


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Args:
        name: for the legend and the tooltips.
        points: `(x, y)`, x rising.
        colour: number of the series.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int


@dataclass(frozen=True)
class Point:
    """One labelled point of a scatter chart.

    Args:
        label: beside the point.
        title: tooltip.
        colour: number of the series.
    """

    x: float
    y: float
    label: str
    title: str
    colour: int


@dataclass(frozen=True)
class _Frame:
    """The drawing area, and what of the data it shows; `logarithmic` is about x."""

    width: float
    height: float
    left: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    logarithmic: bool = False
    top: float = 12
    right: float = 14

    def x(self, value: float) -> float:
        """Place a value from left to right."""
        low, high = self.x_range
        if self.logarithmic:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Place a value from bottom to top."""
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Choose round numbers, at most about `most`, between two bounds."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Choose powers of ten, with 2 and 5 times them where they are few, between two bounds."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) < 4 else (1,)
    return [size * 10.0**power for power in powers for size in factors if low <= size * 10.0**power <= high]


def _padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """Return bounds with some room around all values."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _plain(value: float) -> str:
    """Write a tick."""
    return f"{value:,.10g}" if 1e-4 <= abs(value) < 1e6 or value == 0 else f"{value:g}"


def _axes(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], titles: tuple[str, str]) -> Markup:
    """Draw grid lines, ticks and titles; y's title stands above the axis, where it need not be turned."""
    left, right, floor = frame.left, frame.width - frame.right, frame.height - frame.bottom
    parts = []
    for value in y_ticks:
        y = f"{frame.y(value):.1f}"
        parts.append(tag("line", class_="grid", x1=left, x2=right, y1=y, y2=y))
        parts.append(tag("text", _plain(value), x=left - 7, y=y, dy="0.35em", text_anchor="end"))
    for value in x_ticks:
        parts.append(tag("text", _plain(value), x=f"{frame.x(value):.1f}", y=floor + 17, text_anchor="middle"))
    parts.append(tag("line", class_="axis", x1=left, x2=right, y1=floor, y2=floor))
    middle = (left + right) / 2
    parts.append(tag("text", titles[0], class_="axis-title", x=middle, y=frame.height - 3, text_anchor="middle"))
    if titles[1]:
        parts.append(tag("text", titles[1], class_="axis-title", x=2, y=12))
    return join(*parts)


def _svg(frame: _Frame, label: str, content: Markup, class_: str) -> Markup:
    return tag("svg", content, class_=f"chart {class_}", viewBox=f"0 0 {frame.width:g} {frame.height:g}", role="img",
               aria_label=label)  # fmt: skip


def colour(place: int) -> str:
    """Name the class that has a series's colour."""
    return f"s{place % SERIES}"


def series(place: int) -> str:
    """Name the classes of a series's line: its colour, dashed when the colours repeat."""
    return colour(place) + (" dashed" if place >= SERIES else "")


def line_chart(
    curves: Sequence[Curve], *, label: str, from_zero: bool = False, along: str = "epoch", powers: bool = False
) -> Markup:
    """Draw curves over epochs, or over something else.

    Args:
        curves: at least one, each with at least one point.
        label: what the chart shows, for those who cannot see it.
        from_zero: let y begin at 0.
        along: what x is.
        powers: x is about 1, 2, 4, ...: it is logarithmic, with a tick at each point.
    """
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    low, high = _padded(ys)
    x_range = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 0.5, max(xs) + 0.5)
    frame = _Frame(360, 220, 44, 36, x_range, (0.0 if from_zero else low, high), powers)
    whole = sorted({*xs}) if powers else [value for value in ticks(*x_range) if value % 1 == 0]
    parts = [_axes(frame, whole, ticks(*frame.y_range, 5), (along, ""))]
    for curve in curves:
        places = [(frame.x(x), frame.y(y)) for x, y in curve.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(tag("path", class_=f"curve {series(curve.colour)}", d=path))
        if len(places) <= _MOST_DOTS:
            for (x, y), (place, value) in zip(places, curve.points, strict=True):
                title = tag("title", f"{curve.name}, {along} {place:g}: {significant(value, 4)}")
                spot = {"cx": f"{x:.1f}", "cy": f"{y:.1f}"}
                dot = tag("circle", class_=f"dot {colour(curve.colour)}", r=2.6, **spot)
                parts.append(tag("g", title, dot, tag("circle", class_="target", r=8, **spot)))
    return _svg(frame, label, join(*parts), "curves")


Box = tuple[float, float, float, float]


def _overlap(one: Box, other: Box) -> bool:
    """Say whether two boxes `(left, top, right, bottom)` share any area."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _free_box(x: float, y: float, width: float, taken: Sequence[Box], bounds: Box) -> Box | None:
    """Find room for a label near its point, the nearest first."""
    half = _FONT * 0.65
    for away in (9, 16, 26, 40, 58, 80):
        for turn in (0, 180, 45, -45, 135, -135, 90, -90):
            dx, dy = away * math.cos(math.radians(turn)), -away * math.sin(math.radians(turn))
            shift = 0.0 if dx > 1 else (-width if dx < -1 else -width / 2)
            box = (x + dx + shift, y + dy - half, x + dx + shift + width, y + dy + half)
            inside = box[0] >= bounds[0] and box[1] >= bounds[1] and box[2] <= bounds[2] and box[3] <= bounds[3]
            if inside and not any(_overlap(box, other) for other in taken):
                return box
    return None


def _place_labels(places: Sequence[tuple[float, float, str]], taken: list[Box], bounds: Box) -> list[Box | None]:
    """Give each label a box of its own, or None where there is no room."""
    taken = taken + [(x - 7, y - 7, x + 7, y + 7) for x, y, _ in places]
    boxes: list[Box | None] = []
    for x, y, label in places:
        boxes.append(_free_box(x, y, len(label) * _FONT * _LETTER, taken, bounds))
        taken += [boxes[-1]] if boxes[-1] else []
    return boxes


def _label(x: float, y: float, box: Box, label: str) -> Markup:
    """Write a label into its box, with a line to its point where that is farther away."""
    near_x, near_y = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
    line = None
    if math.hypot(near_x - x, near_y - y) > 14:
        line = tag("line", class_="leader", x1=f"{x:.1f}", y1=f"{y:.1f}", x2=f"{near_x:.1f}", y2=f"{near_y:.1f}")
    # centred, so that a font narrower than assumed leaves equal space on both sides
    anchor = "start" if box[0] > x else ("end" if box[2] < x else "middle")
    at = {"start": box[0], "end": box[2], "middle": (box[0] + box[2]) / 2}[anchor]
    return join(line, tag("text", label, class_="point-label", x=f"{at:.1f}", y=f"{(box[1] + box[3]) / 2:.1f}",
                          dy="0.35em", text_anchor=anchor))  # fmt: skip


def _cut(label: str, most: int) -> str:
    """Shorten a label in its middle, since runs often differ in their ends."""
    return label if len(label) <= most else f"{label[: most // 2 - 1]}…{label[-(most - most // 2) :]}"


def scatter_chart(
    points: Sequence[Point], *, size: tuple[float, float], titles: tuple[str, str], hint: str, class_: str
) -> Markup:
    """Draw labelled points; x becomes logarithmic where it spans more than a factor of 30.

    Labels never overlap: where one has no room, only the tooltip names the point.

    Args:
        points: at least one.
        size: width and height in the units of the SVG, in which text is 12 high.
        titles: of x and y.
        hint: said in the upper left corner.
        class_: of the SVG.
    """
    xs, ys = [point.x for point in points], [point.y for point in points]
    logarithmic = min(xs) > 0 and max(xs) / min(xs) > 30
    x_range = (min(xs) / 1.6, max(xs) * 1.6) if logarithmic else _padded(xs, 0.12)
    if not logarithmic and min(xs) >= 0:
        x_range = (max(0.0, x_range[0]), x_range[1])
    frame = _Frame(*size, 46, 40, x_range, _padded(ys, 0.15), logarithmic, top=30)
    x_ticks = _decades(*x_range) if logarithmic else ticks(*x_range, 5)
    parts = [_axes(frame, x_ticks, ticks(*frame.y_range, 5), titles)]
    corner = (frame.left + 6, frame.top + 4, frame.left + 6 + len(hint) * _FONT * _LETTER, frame.top + 20)
    parts.append(tag("text", hint, class_="hint", x=corner[0], y=corner[3] - 4))
    places = [(frame.x(p.x), frame.y(p.y), _cut(p.label, int(size[0] / 14))) for p in points]
    boxes = _place_labels(places, [corner], (frame.left, frame.top, size[0] - 4, size[1] - frame.bottom - 3))
    for point, (x, y, label), box in zip(points, places, boxes, strict=True):
        dot = tag("circle", tag("title", point.title), class_=f"spot {colour(point.colour)}", cx=f"{x:.1f}",
                  cy=f"{y:.1f}", r=6)  # fmt: skip
        parts.append(join(_label(x, y, box, label) if box else None, dot))
    listed = ", ".join(f"{point.label}: {significant(point.x)}, {significant(point.y, 4)}" for point in points)
    return _svg(frame, f"{titles[1]} against {titles[0]}. {listed}", join(*parts), class_)
