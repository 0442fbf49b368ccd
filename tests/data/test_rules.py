"""The rules of data: checked when they are made, and the same for the call, the command line and the cache."""

from pathlib import Path

import pytest
from writers import write_nmnist

from braincog_transformers.data.build import Access, Augment, Colours, FrameRule, Split, build_datasets
from braincog_transformers.data.events.cache import cache_key
from braincog_transformers.data.events.recordings import Character, GivenSteps, Pickled, TopLeft
from braincog_transformers.data.readers import Segment
from braincog_transformers.errors import UserError

ROOT = Path("/no_such_folder")
FILES = [
    ROOT / "a.bin", Segment(ROOT / "b.aedat", 5, 9), TopLeft(ROOT / "c.dat"), Character(ROOT / "d.aedat4", 1, 2),
    GivenSteps(ROOT / "e.npz", 3, 4), Pickled(ROOT / "f.npy"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "files", "rule", "digest"),
    [
        ("dvsg-train", FILES, FrameRule(sensor=(128, 128), size=(48, 48), steps=4),
         "480c22b8284d4f1504304878e98b5d05b0c802c7e66357987395d8f9cf71879c"),
        ("nmnist-test", FILES[:1],
         FrameRule(
             sensor=(34, 34), size=(34, 34), steps=10, kind="surface", by="time", remainder="drop", clip=1, merge=True,
             tau_us=2e4, resize="bilinear", norm="max",
         ), "526b10903663e601d1c98f1415f0eabb8876960bf7aa0ea16acbc6222e24b506"),
    ],
)  # fmt: skip
def test_frames_that_the_version_before_cached_are_found(name, files, rule, digest):
    assert cache_key(name, files, rule) == digest


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: FrameRule(steps=0), "--step must be 1 or more; got 0"),
        (lambda: FrameRule(clip=0), "--clip-counts must be 1 or more"),
        (lambda: FrameRule(tau_us=0.0), "--surface-tau must be above 0 microseconds"),
        (lambda: FrameRule(by="tme"), "unknown rule of --frames-by 'tme'; did you mean time"),
        (lambda: FrameRule(remainder="lost"), "unknown rule of --remainder"),
        (lambda: FrameRule(resize="cubic"), "unknown resizing of events"),
        (lambda: FrameRule(kind="voxels"), "unknown kind of --frames 'voxels'; did you mean voxel"),
        (lambda: FrameRule(norm="mx"), "unknown rule of --frame-norm"),
        (lambda: Split(portion=1.0), "--train-portion must be above 0 and below 1; got 1.0"),
        (lambda: Split(rule="tebn", portion=0.5), "split 'tebn' is fixed"),
        (lambda: Augment(interpolation="cubic"), "--interpolation must be one of"),
        (lambda: Access(max_pixels=0), "--max-pixels must be 1 or more"),
        (lambda: Access(workers=-1), "--workers must be 0 or more"),
    ],
)
def test_a_rule_checks_itself(rule, message):
    with pytest.raises(UserError, match=message):
        rule()


def test_rules_and_keywords_are_one(tmp_path):
    write_nmnist(tmp_path / "NMNIST")
    rules = {"frames": FrameRule(steps=3, by="time", clip=2), "access": Access(use_cache=False)}
    keywords = {"step": 3, "frames_by": "time", "clip_counts": 2, "use_cache": False}
    one, other = (build_datasets("nmnist", tmp_path, size=(17, 17), **given) for given in (rules, keywords))
    assert one.train.rule == other.train.rule == FrameRule(sensor=(34, 34), size=(17, 17), steps=3, by="time", clip=2)
    mixed = build_datasets("nmnist", tmp_path, frames=FrameRule(by="time"), step=5, use_cache=False)
    assert (mixed.train.rule.steps, mixed.train.rule.by) == (5, "time")


def test_steps_of_their_own_are_no_rule_for_other_recordings(tmp_path):
    with pytest.raises(UserError, match="unknown rule of --frames-by 'given'"):
        build_datasets("nmnist", tmp_path, frames_by="given")


def test_colours_of_the_call_take_the_place_of_the_sets():
    own = Colours(mean=(0.5,), std=(0.25,))
    x, _ = build_datasets("digits", "nowhere", colours=own).test[0]
    y, _ = build_datasets("digits", "nowhere", normalize=False).test[0]
    assert ((y - 0.5) / 0.25 - x).abs().max() < 1e-6
