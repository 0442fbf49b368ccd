"""Charts: round ticks, and labels that never overlap."""

import itertools
import re

import pytest

from braincog_transformers.report import charts
from braincog_transformers.report.charts import Curve, Point, line_chart, scatter_chart, ticks


def test_ticks_are_round():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(93.1, 98.6, 5) == [94, 96, 98]
    assert ticks(2, 2) == [2]


def draw(points, size=(340, 330)):
    return scatter_chart(points, size=size, titles=("x", "y"), hint="better", class_="wide")


def boxes(drawn):
    """Reckon the box of each label from its text, as wide as an ordinary font sets it."""
    pattern = r'class="point-label" x="([\d.-]+)" y="([\d.-]+)" dy="0.35em" text-anchor="(\w+)">([^<]*)'
    for x, y, anchor, text in re.findall(pattern, drawn):
        width = 0.6 * 12 * len(text)
        left = float(x) - {"start": 0, "middle": width / 2, "end": width}[anchor]
        yield left, float(y) - 6, left + width, float(y) + 6


@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0])
def test_labels_never_overlap_or_leave_the_picture(spread):
    points = [Point(5 + spread * (i % 4), 90 + spread * (i // 4), f"spikformer-{i}", "", i) for i in range(12)]
    drawn = draw(points)
    found = list(boxes(drawn))
    assert len(found) >= 4
    assert not any(charts._overlap(one, other) for one, other in itertools.combinations(found, 2))
    assert all(box[0] >= 0 and box[2] <= 340 and box[1] >= 0 and box[3] <= 330 for box in found)
    assert drawn.count('class="spot') == 12


def test_few_labels_are_all_there():
    drawn = draw([Point(1, 90, "one", "tip 1", 0), Point(2, 95, "two", "tip 2", 1), Point(3, 91, "three", "", 2)])
    assert [text in drawn for text in (">one<", ">two<", ">three<", "<title>tip 1</title>")] == [True] * 4


def test_energies_far_apart_get_a_logarithmic_axis():
    drawn = draw([Point(0.01, 90, "small", "", 0), Point(100, 95, "large", "", 1)])
    assert [f">{tick}<" in drawn for tick in ("0.01", "1", "100")] == [True] * 3


@pytest.mark.parametrize("points", [[(0, 1.0)], [(0, 0.0), (1, 0.0)], [(3, 5.0), (4, 5.0)]])
def test_single_and_constant_values_are_drawn(points):
    drawn = line_chart([Curve("one", points, 0)], label="curve", from_zero=True)
    assert drawn.count('class="dot') == len(points)
    assert "nan" not in drawn
