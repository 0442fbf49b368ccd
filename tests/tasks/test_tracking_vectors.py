"""Targets, losses, crops, the tracker's choice and the figures are those of the official code of STNet."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from braincog_transformers.tasks.tracking.crops import crop, mean_colour, side_with_context
from braincog_transformers.tasks.tracking.metrics import center_error, figures, overlap, success_curve
from braincog_transformers.tasks.tracking.targets import Locations, box_loss, centerness_loss, class_loss
from braincog_transformers.tasks.tracking.tracker import Tracker, choose, cosine_window

HERE = Path(__file__).parents[1] / "golden" / "tracking_pipeline.safetensors"


class Vector:
    """Tensors by name; a test of one that the file lacks is skipped."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.kwargs = json.loads(file.metadata()["kwargs"])

    def __getitem__(self, name):
        if name not in self.tensors:
            pytest.skip(f"the committed vector has no {name}; --golden-dir has the whole one")
        return self.tensors[name]


@pytest.fixture(scope="module", params=["committed", "whole"])
def vector(request):
    whole = request.config.getoption("--golden-dir") / "stnet_pipeline.safetensors"
    path = HERE if request.param == "committed" else whole
    if not path.is_file():
        pytest.skip("not in --golden-dir")
    return Vector(path)


@pytest.fixture
def locations(vector):
    given = vector.kwargs
    found = Locations(given["score_size"], given["total_stride"], given["x_size"])
    assert found.offset == given["score_offset"]
    return found


def test_targets(vector, locations):
    for number, box in enumerate(vector["target.boxes"]):
        found = locations.targets(box)
        for ours, theirs in (("cls", "cls_gt"), ("ctr", "ctr_gt"), ("boxes", "box_gt")):
            torch.testing.assert_close(found[ours], vector[f"target.{theirs}"][number], atol=2e-7, rtol=0)


def test_targets_of_a_pair_of_two_objects(vector, locations):
    theirs, box = vector["loss.cls_gt"][2], vector["target.boxes"][2]
    assert torch.equal(locations.targets(box, negative=True).cls, theirs)
    assert torch.equal(locations.targets(box, negative=True).ctr, locations.targets(box).ctr)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2), (0.5, 0)])
def test_class_loss(vector, alpha, gamma):
    found = class_loss(vector["loss.cls_pred"], vector["loss.cls_gt"], alpha, gamma)
    # the official losses are in 32 bits
    assert found.item() == pytest.approx(vector[f"loss.value.retina_a{alpha}_g{gamma}"].item(), rel=1e-6)


def test_other_losses(vector):
    found = centerness_loss(vector["loss.ctr_pred"], vector["target.ctr_gt"])
    assert found.item() == pytest.approx(vector["loss.value.centerness"].item(), rel=1e-6)
    positive = vector["loss.cls_gt"][..., 0] > 0
    found = box_loss(vector["loss.box_pred"], vector["target.box_gt"], positive)
    assert found.item() == pytest.approx(vector["loss.value.iou"].item(), rel=1e-6)


def test_crops(vector):
    image = vector["crop.image"].permute(2, 0, 1)
    x, y, width, height = vector["crop.pos_sz"].tolist()
    torch.testing.assert_close(mean_colour(image), vector["crop.avg_chans"], atol=1e-9, rtol=0)
    side = side_with_context(width, height)
    scale = 33 / side
    assert scale == pytest.approx(vector["crop.scale"][0].item(), rel=1e-12)
    for name, whole, size in (("z", side, 33), ("x", 61 / scale, 61)):
        found = crop(image, (x, y), round(whole), size, mean_colour(image)).permute(1, 2, 0).int()
        difference = (found - vector[f"crop.{name}"].int()).abs()
        assert difference.max() <= 1  # OpenCV interpolates with 5 bits
        assert difference.float().mean() < 0.01


def test_what_the_tracker_chooses(vector):
    given = vector.kwargs
    window = cosine_window(given["score_size"])
    rules = {
        "window": window, "crop_size": given["x_size"], "penalty": given["penalty_k"],
        "influence": given["window_influence"], "rate": given["test_lr"],
    }  # fmt: skip
    for number, (x, y, width, height, scale) in enumerate(vector["post.in"].tolist()):
        boxes, scores = vector["post.box_xyxy"][number], vector["post.score"][number]
        found = choose(boxes, scores, (x, y), (width, height), scale, **rules)
        tracker = Tracker.__new__(Tracker)
        tracker.smallest = given["min_w"]
        tracker._restricted(found.centre, found.size, torch.zeros(3, *given["im_hw"]))
        (x, y), (width, height) = tracker.centre, tracker.size
        ours = [found.index, found.score, found.penalty, *found.centre, *found.size, x, y, width, height]
        ours += [x - (width - 1) / 2, y - (height - 1) / 2, width, height]
        # the official tracker keeps places in 32 bits
        np.testing.assert_allclose(ours, vector["post.out"][number].numpy(), rtol=1e-6, atol=1e-5)


def test_the_window_of_the_whole_vector(vector):
    torch.testing.assert_close(cosine_window(17), vector["post.window"], atol=1e-15, rtol=0)


def test_figures(vector):
    boxes, truth = (vector[f"metric.{name}"].numpy() for name in ("pred", "gt"))
    overlaps = overlap(boxes, truth, (346, 260))
    np.testing.assert_allclose(overlaps, vector["metric.iou"].numpy(), atol=1e-12)
    errors = [center_error(boxes, truth, normalized=normalized) for normalized in (False, True)]
    np.testing.assert_allclose(errors[0], vector["metric.center_error"].numpy(), atol=1e-9)
    np.testing.assert_allclose(errors[1], vector["metric.norm_center_error"].numpy(), atol=1e-9)
    np.testing.assert_allclose(success_curve(overlaps), vector["metric.success_curve"].numpy(), atol=1e-12)
    found = figures([overlaps], [errors[0]], [errors[1]])
    theirs = 100 * vector["metric.ao_sr50_sr75"].numpy()
    np.testing.assert_allclose([found["ao"], found["sr50"], found["sr75"]], theirs, atol=1e-9)
    assert found["auc"] == pytest.approx(100 * success_curve(overlaps).mean())
