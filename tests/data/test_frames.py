"""Cutting and resizing: worked by hand, and against tonic and torch."""

import numpy as np
import pytest
import torch
from writers import random_events

from braincog_transformers.data.frames import count_factor, events_to_frames, resize_counts
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
