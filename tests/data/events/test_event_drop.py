"""EventDrop on frames: events go, none come, and in the published shares."""

import pytest
import torch

from braincog_transformers.data.events import transforms as module
from braincog_transformers.data.events.transforms import EventDrop

WAYS = ["time", "area", "random"]


def frames(rate=3.0):
    return torch.poisson(torch.full((8, 2, 20, 24), rate), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("way", WAYS)
def test_whole_events_are_dropped_and_none_are_added(way):
    x = frames()
    for seed in range(20):
        torch.manual_seed(seed)
        left = EventDrop((way,))(x)
        assert torch.equal(x, frames())
        assert torch.equal(left, left.floor())
        assert (left <= x).all()
        assert left.min() >= 0
        assert left.any()


@pytest.mark.parametrize("way", WAYS)
def test_same_seed_same_drop_and_another_seed_another(way):
    torch.manual_seed(1)
    first = EventDrop((way,))(frames())
    torch.manual_seed(1)
    assert torch.equal(EventDrop((way,))(frames()), first)
    assert not torch.equal(EventDrop((way,))(frames()), first)


def test_four_ways_are_drawn_evenly(monkeypatch):
    counts = dict.fromkeys(WAYS, 0)
    for way in WAYS:
        monkeypatch.setitem(module._DROPS, way, lambda x, way=way: counts.update({way: counts[way] + 1}) or x)
    torch.manual_seed(0)
    for _ in range(1000):
        EventDrop()(frames())
    assert all(200 < count < 300 for count in counts.values())


@pytest.mark.parametrize(("draw", "kept"), [(0, 0.9), (8, 0.1)])
def test_random_drop_takes_a_tenth_to_nine_tenths(monkeypatch, draw, kept):
    monkeypatch.setattr(module, "_below", lambda count: min(draw, count - 1))
    x = frames()
    left = EventDrop(("random",))(x)
    assert (left.sum() / x.sum()).item() == pytest.approx(kept, abs=0.02)


def test_time_drop_empties_whole_frames_and_thins_those_at_its_ends(monkeypatch):
    monkeypatch.setattr(module, "_below", lambda count: min(4, count - 1))  # half of the recording
    monkeypatch.setattr(module, "_uniform", lambda low, high: 0.21875)  # from three quarters of the second frame
    x = frames()
    left = EventDrop(("time",))(x)
    share = (left.sum((1, 2, 3)) / x.sum((1, 2, 3))).tolist()
    assert share == pytest.approx([1, 0.75, 0, 0, 0, 0.25, 1, 1], abs=0.06)
    assert [share[step] for step in (0, 2, 3, 4, 6, 7)] == [1, 0, 0, 0, 1, 1]


def test_time_drop_is_clipped_at_the_end(monkeypatch):
    monkeypatch.setattr(module, "_below", lambda count: count - 1)
    monkeypatch.setattr(module, "_uniform", lambda low, high: 0.75)
    x = frames()
    left = EventDrop(("time",))(x)
    assert torch.equal(left[:6], x[:6])
    assert not left[6:].any()


@pytest.mark.parametrize(("draw", "rows", "columns"), [(0, 1, 1), (9, 10, 12), (18, 19, 23)])
def test_area_drop_empties_one_box_of_the_drawn_share_of_either_side(monkeypatch, draw, rows, columns):
    monkeypatch.setattr(module, "_below", lambda count: min(draw, count - 1))
    monkeypatch.setattr(module, "_uniform", lambda low, high: high / 2)
    empty = (EventDrop(("area",))(frames() + 1) == 0).all(0).all(0)
    assert (empty.any(1).sum(), empty.any(0).sum()) == (rows, columns)
    assert empty.sum() == rows * columns


def test_a_sample_that_would_lose_everything_keeps_it(monkeypatch):
    monkeypatch.setattr(module, "_uniform", lambda low, high: 0.0)
    monkeypatch.setattr(module, "_below", lambda count: count - 1)
    x = torch.zeros(8, 1, 4, 4)
    x[0, 0, 1, 1] = 5
    assert torch.equal(EventDrop(("time",))(x), x)
    assert not EventDrop()(torch.zeros(8, 1, 4, 4)).any()


def test_fractions_and_signs_are_kept_in_the_mean():
    torch.manual_seed(0)
    x = torch.tensor([0.25, -1.5, 3.0, 0.0]).expand(20_000, 4)
    left = module._thin(x, 0.3)
    assert left.mean(0).tolist() == pytest.approx([0.075, -0.45, 0.9, 0.0], abs=0.02)
    assert set(left[:, 0].unique().tolist()) == {0.0, 0.25}
    assert left[:, 1].max() <= 0
