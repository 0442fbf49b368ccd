"""Cutting and resizing: worked by hand, and against tonic and torch."""

from functools import partial

import numpy as np
import pytest
import torch
from writers import random_events

from braincog_transformers.data.events.frames import (
    count_factor,
    event_channels,
    events_to_frames,
    normalize_frames,
    resize_counts,
    time_surfaces,
    voxel_grid,
)
from braincog_transformers.data.readers import make_events


def events_at(times):
    zeros = np.zeros(len(times), int)
    return make_events(np.array(times), zeros, zeros, zeros)


def per_frame(times, steps, **rules):
    return events_to_frames(events_at(times), steps, (1, 1), **rules).sum((1, 2, 3)).tolist()


@pytest.mark.parametrize(
    ("by", "remainder", "expected"),
    [
        ("number", "last", [3, 3, 4]),
        ("number", "drop", [3, 3, 3]),
        # width (20 - 0) // 3 = 6: [0, 6), [6, 12), [12, 18), and the events at 18 and 20 are left over
        ("time", "last", [5, 2, 3]),
        ("time", "drop", [5, 2, 1]),
    ],
)
def test_ten_events_in_three_frames(by, remainder, expected):
    assert per_frame([0, 1, 2, 3, 5, 6, 11, 12, 18, 20], 3, by=by, remainder=remainder) == expected


@pytest.mark.parametrize(("remainder", "expected"), [("last", [0, 0, 2]), ("drop", [0, 0, 0])])
@pytest.mark.parametrize("by", ["number", "time"])
def test_less_than_the_frames_is_all_remainder(by, remainder, expected):
    assert per_frame([0, 1], 3, by=by, remainder=remainder) == expected


def test_no_events_give_empty_frames():
    assert events_to_frames(events_at([]), 2, (3, 4)).tolist() == np.zeros((2, 2, 3, 4)).tolist()


def test_places_each_event_in_its_polarity_row_and_column():
    events = make_events([0, 1], [2, 0], [1, 0], [True, False])
    frames = events_to_frames(events, 2, (2, 3))
    assert frames.dtype == np.float32
    assert np.argwhere(frames).tolist() == [[0, 1, 1, 2], [1, 0, 0, 0]]


def test_many_events_on_one_pixel_do_not_wrap():
    assert per_frame([0] * 70_000, 1, by="number") == [70_000]


@pytest.mark.parametrize(("by", "option"), [("number", "n_event_bins"), ("time", "n_time_bins")])
def test_dropping_equals_tonic(by, option):
    transforms = pytest.importorskip("tonic.transforms")
    events = random_events(1003)
    theirs = transforms.ToFrame(sensor_size=(34, 34, 2), **{option: 7})(events)
    ours = events_to_frames(events, 7, (34, 34), by=by, remainder="drop")
    assert np.array_equal(ours, theirs)
    assert ours.sum() < 1003


@pytest.mark.parametrize("rules", [{"by": "size"}, {"remainder": "lost"}])
def test_unknown_rules_are_refused(rules):
    with pytest.raises(ValueError, match="must be in"):
        per_frame([0, 1], 1, **rules)


def test_zero_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        per_frame([0], 0)


@pytest.mark.parametrize("size", [(17, 17), (16, 16), (34, 10), (50, 41)])
def test_area_loses_no_event(size):
    frames = events_to_frames(random_events(500), 2, (34, 34))
    small = resize_counts(frames, size)
    assert small.shape == (2, 2, *size)
    assert small.mean((2, 3)) == pytest.approx(frames.mean((2, 3)), rel=1e-5)


def test_area_of_three_pixels_on_two_is_worked_by_hand():
    row = np.array([[[[3.0, 6.0, 9.0]]]], np.float32)
    # each half covers one pixel and a half: (3 + 6 / 2) / 1.5 and (6 / 2 + 9) / 1.5
    assert resize_counts(row, (1, 2)).ravel() == pytest.approx([4.0, 8.0])


def test_whole_factors_give_counts_again():
    frames = events_to_frames(random_events(500), 2, (34, 34))
    factor = count_factor((34, 34), (17, 17), "area")
    counts = resize_counts(frames, (17, 17)) * factor
    assert factor == 4
    assert np.array_equal(counts, np.round(counts))


@pytest.mark.parametrize("size", [(16, 16), (48, 40), (1, 1)])
def test_bilinear_equals_torch_with_aligned_corners(size):
    frames = events_to_frames(random_events(500), 2, (34, 34))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(frames).double(), size, mode="bilinear", align_corners=True
    )
    assert resize_counts(frames, size, "bilinear") == pytest.approx(expected.numpy(), abs=1e-5)


def test_unknown_resizing_is_refused():
    with pytest.raises(ValueError, match="rule must be one of"):
        resize_counts(np.zeros((1, 1, 2, 2)), (1, 1), "nearest")


@pytest.mark.parametrize("by", ["number", "time"])
def test_merged_polarities_are_the_sum(by):
    events = random_events(500)
    both = events_to_frames(events, 3, (34, 34), by=by)
    assert np.array_equal(events_to_frames(events, 3, (34, 34), by=by, merge=True), both.sum(1, keepdims=True))


def as_integers(events):
    return events.astype([(name, "i8") for name in ("t", "x", "y", "p")])


def test_voxel_grid_is_tonics_with_both_signs():
    transforms = pytest.importorskip("tonic.transforms")
    events = random_events(1003)
    theirs = transforms.ToVoxelGrid((34, 34, 2), 5)(as_integers(events))
    ours = voxel_grid(events, 5, (34, 34))
    assert ours == pytest.approx(theirs.astype(np.float32))
    assert ours.min() < 0 < ours.max()


def test_voxel_grid_of_four_events_is_worked_by_hand():
    # two bins over 8 us: at 2 us halfway between bins 0 and 1; bin 2, where the last event lies, is none of the grid's
    events = make_events([0, 2, 4, 8], [0] * 4, [0] * 4, [True, True, False, True])
    assert voxel_grid(events, 2, (1, 1)).ravel().tolist() == [1.5, -0.5]


@pytest.mark.parametrize("count", [1, 5])
def test_voxel_grid_without_duration_counts_all_in_the_first_bin(count):
    events = make_events([7] * count, [0] * count, [0] * count, [True] * count)
    assert voxel_grid(events, 3, (1, 1)).ravel().tolist() == [count, 0, 0]


def test_time_surfaces_are_tonics():
    transforms = pytest.importorskip("tonic.transforms")
    events = random_events(1003)
    window = int(events["t"][-1] - events["t"][0]) // 4 + 1
    theirs = transforms.ToTimesurface((34, 34, 2), window, 3e4)(as_integers(events))
    ours = time_surfaces(events, 4, (34, 34), tau_us=3e4)
    assert ours.shape == (4, 2, 34, 34)
    assert ours[:3] == pytest.approx(theirs.astype(np.float32))


def test_time_surfaces_of_two_events_are_worked_by_hand():
    # windows of 10 // 2 + 1 = 6 us end at 6 and 12 us
    events = make_events([0, 10], [0, 1], [0, 0], [False, True])
    surfaces = time_surfaces(events, 2, (1, 2), tau_us=6)
    assert surfaces[:, 0, 0] == pytest.approx(np.exp([[-1, -np.inf], [-2, -np.inf]]))
    assert surfaces[:, 1, 0] == pytest.approx(np.exp([[-np.inf, -np.inf], [-np.inf, -1 / 3]]))
    merged = time_surfaces(events, 2, (1, 2), tau_us=6, merge=True)
    assert np.array_equal(merged, surfaces.max(1, keepdims=True))


@pytest.mark.parametrize("times", [[5], [5, 6], [5, 5, 5]])
def test_time_surfaces_of_the_shortest_recordings_have_all_windows(times):
    surfaces = time_surfaces(events_at(times), 4, (1, 1), tau_us=1e4)
    assert surfaces.shape == (4, 2, 1, 1)
    assert surfaces[-1].max() > 0


@pytest.mark.parametrize("frames", [voxel_grid, partial(time_surfaces, tau_us=1e4)])
def test_the_events_given_stay_as_they_are(frames):
    events = random_events(50)
    kept = events.copy()
    frames(events, 3, (34, 34))
    assert np.array_equal(events, kept)


@pytest.mark.parametrize(("rule", "scale"), [("none", 1), ("max", 6), ("mean", 2.5)])
def test_normalisation_divides_a_sample_by_one_number(rule, scale):
    frames = np.array([1, -3, 0, 6], np.float32).reshape(2, 1, 2, 1)
    assert normalize_frames(frames, rule) == pytest.approx(frames / scale)
    assert normalize_frames(0 * frames, rule).tolist() == (0 * frames).tolist()


def test_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match="rule must be one of"):
        normalize_frames(np.zeros((1, 1, 1, 1)), "sum")


@pytest.mark.parametrize(
    ("kind", "options", "chans"),
    [("count", {}, 2), ("count", {"merge": True}, 1), ("count", {"appended": True}, 3), ("voxel", {}, 1)],
)
def test_channels_of_a_frame(kind, options, chans):
    assert event_channels(kind, **options) == chans
