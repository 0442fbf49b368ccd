"""Segmentation: heads on backbones of the zoo, the loss, mean IoU beside its definition, and what is written."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from braincog_transformers.cli import main
from braincog_transformers.data import DATASETS
from braincog_transformers.errors import NonFiniteLoss, UserError
from braincog_transformers.runtime.batch import Batch
from braincog_transformers.tasks.backbone import build_backbone
from braincog_transformers.tasks.segmentation import (
    SegmentationLoss,
    SegmentationMeter,
    SegmentationNetwork,
    SegmentationSettings,
)
from braincog_transformers.tasks.segmentation.masks import VOID, MaskRule
from braincog_transformers.tasks.segmentation.meter import labels_of
from braincog_transformers.tasks.segmentation.samples import Segments

# QKFormer of width 64 has a convolution of 8 to 16 channels, 1 x 1 with stride 2, in whose backward pass oneDNN 3.12
# damages memory
BACKBONES = {
    "sdt_v2_15m": {"embed_dims": (16, 32, 48, 64), "depths": (1, 1), "num_heads": 4, "step": 2},
    "sdt_v3_5m": {"embed_dims": (16, 32, 48, 64), "depths": (1, 1), "num_heads": 4},
    "qkformer_10_384": {"embed_dim": 128, "num_heads": 4, "depths": (1, 1, 1), "step": 2},
    "spikingresformer_ti": {
        "embed_dims": (16, 32, 64), "depths": (1, 1, 1), "num_heads": (1, 2, 4), "group_size": 16, "step": 2,
    },
    "spikformer_8_384": {"embed_dim": 64, "num_heads": 4, "depth": 1, "step": 2},
}  # fmt: skip


def build(name, size, head_time="mean", classes=5, **settings):
    def create(**further):
        return timm.create_model(name, in_chans=3, num_classes=0, **BACKBONES[name], **further)

    torch.manual_seed(0)
    backbone = build_backbone(create, head_time, size)
    return SegmentationNetwork(backbone, classes, SegmentationSettings(channels=16, **settings))


@pytest.mark.parametrize("size", [(224, 224), (160, 256)], ids=str)
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("head", ["fpn", "fcn"])
def test_one_step_of_training(name, size, head):
    network = build(name, size, head=head, auxiliary=0.4 if head == "fcn" else 0.0)
    x, target = torch.randn(1, 3, *size), torch.randint(0, 5, (1, *size))
    target[:, :20] = VOID
    output = network.train()(x)
    loss = SegmentationLoss(auxiliary=0.4)(output, target)
    loss.backward()
    assert math.log(5) / 2 < loss.item() < 6 * math.log(5)
    # each weight that is trained takes part, as several processes need; those of classifiers and last neurons are gone
    without = [key for key, one in network.named_parameters() if one.requires_grad and one.grad is None]
    assert not without
    with torch.no_grad():
        assert network.eval()(x).shape == (1, 5, *size)


@pytest.mark.parametrize("name", ["sdt_v2_15m", "spikformer_8_384"])
@pytest.mark.parametrize("head", ["fpn", "fcn"])
def test_a_head_that_reads_each_step_gives_the_mean_of_what_it_makes_of_them(name, head):
    network, x = build(name, (64, 96), "each", head=head), torch.randn(2, 3, 64, 96)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = None  # one pass fits the statistics, so that all layers fire
    with torch.no_grad():
        network.train()(x)
        network.eval()
        maps = network.backbone(x)
        each = [network.head({key: one.unflatten(0, (2, 2))[t] for key, one in maps.items()}) for t in range(2)]
        expected = F.interpolate((each[0] + each[1]) / 2, (64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(network(x), expected)
        other = build(name, (64, 96), "mean", head=head).eval()
        other.load_state_dict(network.state_dict())
        assert not torch.allclose(other(x), expected)


def test_the_fpn_head_is_the_papers():
    network = build("sdt_v2_15m", (64, 96))
    # strides 4, 8 and 16: one convolution at the finest and at the next level, two at the last
    assert [len(level) for level in network.head.levels] == [1, 1, 2]
    network.eval()
    x = torch.randn(1, 3, 62, 90)
    with torch.no_grad():
        maps = network.backbone(x)
        levels = list(network.head.pyramid(maps).values())
        size = levels[0].shape[-2:]
        assert size == (16, 23)
        total = 0
        for level, convolutions in zip(levels, network.head.levels, strict=True):
            for convolution in convolutions:
                level = convolution(level)
                half = tuple(min(2 * a, b) for a, b in zip(level.shape[-2:], size, strict=True))
                level = F.interpolate(level, half, mode="bilinear", align_corners=False)
            total = total + F.interpolate(level, size, mode="bilinear", align_corners=False)
        expected = F.interpolate(network.head.classifier(total), (62, 90), mode="bilinear", align_corners=False)
        torch.testing.assert_close(network(x), expected)


def test_an_auxiliary_head_needs_two_maps():
    network = build("sdt_v2_15m", (64, 64))
    network.backbone.channels = network.backbone.channels[-1:]
    with pytest.raises(UserError, match="auxiliary: reads the last map but one"):
        SegmentationNetwork(network.backbone, 3, SegmentationSettings(head="fcn", auxiliary=0.4))


@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0)])
def test_the_loss_is_pytorchs_without_void(weights):
    logits, target = torch.randn(2, 3, 6, 7, requires_grad=True), torch.randint(0, 3, (2, 6, 7), dtype=torch.uint8)
    target[0, :3] = VOID
    own = None if weights is None else torch.tensor(weights)
    expected = F.cross_entropy(logits, target.long(), weight=own, ignore_index=VOID)
    torch.testing.assert_close(SegmentationLoss(weights)(logits, target), expected)
    both = SegmentationLoss(weights, 0.4)({"out": logits, "aux": 2 * logits}, target)
    other = F.cross_entropy(2 * logits, target.long(), weight=own, ignore_index=VOID)
    torch.testing.assert_close(both, expected + 0.4 * other)
    nothing = SegmentationLoss(weights)(logits, torch.full_like(target, VOID))
    nothing.backward()
    assert nothing == 0
    assert (logits.grad == 0).all()


class Given(nn.Module):
    """Stand in for a network: logits that are read from the first channels of its input."""

    def forward(self, x):
        return x


def measured(logits, masks, classes=4, ranks=1, save_masks=1, first=0):
    """Return meters of several ranks, each with its share of the samples, and the figures."""
    pairs = [(type("P", (), {"name": f"{i}.jpg", "stem": str(i)})(), None) for i in range(len(masks))]
    samples = Segments(pairs, MaskRule(classes, first, 10**6), None)
    names = tuple(f"class {label}" for label in range(classes))
    meters = [SegmentationMeter(samples, names, SegmentationLoss(), save_masks) for _ in range(ranks)]
    parts = []
    for index, (one, mask) in enumerate(zip(logits, masks, strict=True)):
        target = Batch(labels=mask[None], index=torch.tensor([index]))
        meters[index % ranks].update(Given(), one[None], target)
    for meter in meters:
        meter.compute(lambda own: parts.append(own) or [own])
    return meters[0], meters[0].compute(lambda own: parts)


@pytest.mark.parametrize("ranks", [1, 2])
def test_mean_iou_is_that_of_its_definition_at_the_masks_sizes(ranks):
    torch.manual_seed(1)
    sizes = [(9, 14), (20, 11), (7, 7)]
    logits = [torch.randn(4, 8, 10) for _ in sizes]
    masks = [torch.randint(0, 2, size, dtype=torch.uint8) for size in sizes]
    for one in logits:
        one[3] = -100  # never predicted, and never true
        one[2] += 0.5  # predicted, but never true
    masks[0][:2] = VOID
    guesses = [
        F.interpolate(one[None], size, mode="bilinear", align_corners=False)[0].argmax(0)
        for one, size in zip(logits, sizes, strict=True)
    ]
    truth = torch.cat([mask.flatten() for mask in masks])
    guess = torch.cat([one.flatten() for one in guesses])[truth != VOID]
    truth = truth[truth != VOID]
    ious, shares = [], []
    for label in range(3):
        a, b = truth == label, guess == label
        ious.append(100 * (a & b).sum().item() / (a | b).sum().item())
        shares += [100 * (a & b).sum().item() / a.sum().item()] if a.any() else []
    assert ious[2] == 0
    meter, figures = measured(logits, masks, ranks=ranks)
    assert figures["miou"] == pytest.approx(sum(ious) / 3)
    assert figures["pixel_accuracy"] == pytest.approx(100 * (truth == guess).float().mean().item())
    assert figures["mean_class_accuracy"] == pytest.approx(sum(shares) / 2)
    assert np.isnan(meter.figures["iou"][3])


def test_a_right_prediction_has_100_percent_and_its_loss():
    mask = torch.randint(0, 4, (8, 8), dtype=torch.uint8)
    logits = 10 * F.one_hot(mask.long(), 4).permute(2, 0, 1).float()
    _, figures = measured([logits], [mask])
    expected = math.log(1 + 3 * math.exp(-10))
    assert figures == pytest.approx(
        {"miou": 100, "pixel_accuracy": 100, "mean_class_accuracy": 100, "loss": expected}, rel=1e-3
    )


def test_logits_that_are_not_finite_end_the_evaluation():
    with pytest.raises(NonFiniteLoss):
        measured([torch.full((4, 8, 8), float("nan"))], [torch.zeros(8, 8, dtype=torch.uint8)])


def test_large_masks_are_predicted_some_classes_at_a_time(monkeypatch):
    logits = torch.randn(7, 5, 6)
    expected = F.interpolate(logits[None], (40, 30), mode="bilinear", align_corners=False)[0].argmax(0)
    monkeypatch.setattr("braincog_transformers.tasks.segmentation.meter._VALUES", 2 * 40 * 30 + 1)
    assert torch.equal(labels_of(logits, (40, 30)), expected)


@pytest.mark.parametrize("first", [0, 1])
def test_predictions_are_written_as_coco_has_them(tmp_path, first):
    from pycocotools.coco import COCO

    torch.manual_seed(2)
    logits = [torch.randn(4, 8, 10), torch.randn(4, 8, 10)]
    masks = [torch.zeros(12, 9, dtype=torch.uint8), torch.ones(6, 7, dtype=torch.uint8)]
    meter, _ = measured(logits, masks, ranks=2, first=first)
    paths = meter.write(tmp_path)
    assert [path.name for path in paths] == ["class_iou.json", "segmentations.json", "masks"]
    assert all(path.exists() for path in paths)
    rows = json.loads((tmp_path / "class_iou.json").read_text())
    assert [row["class"] for row in rows] == ["class 0", "class 1", "class 2", "class 3"]
    assert rows[2]["accuracy"] is None
    coco = COCO(tmp_path / "segmentations.json")
    for index, (one, mask) in enumerate(zip(logits, masks, strict=True)):
        label = labels_of(one, tuple(mask.shape)).numpy()
        found = {note["category_id"]: coco.annToMask(note) for note in coco.imgToAnns[index + 1]}
        assert sorted(found) == [number + first for number in np.unique(label)]
        for number, shown in found.items():
            assert np.array_equal(shown, label == number - first)
            note = next(note for note in coco.imgToAnns[index + 1] if note["category_id"] == number)
            assert note["area"] == shown.sum()
        assert coco.imgs[index + 1]["file_name"] == f"{index}.jpg"
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["0.png"]
    with Image.open(tmp_path / "masks" / "0.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), labels_of(logits[0], (12, 9)).numpy() + first)


def test_the_scene_is_trained_measured_and_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(DATASETS, "segment_scene", replace(DATASETS["segment_scene"], samples=(40, 5)))
    given = (
        "-c",
        "segment_scene",
        "--data-dir",
        str(tmp_path / "data"),
        "--output",
        str(tmp_path),
        "--experiment",
        "run",
    )
    few = (
        "--epochs",
        "2",
        "--warmup-epochs",
        "0",
        "--task-kwargs",
        "channels=16",
        "resize=(0.8, 1.25)",
        "save_masks=3",
    )
    assert main([*given, *few, "--img-size", "32", "--head-time", "each"]) == 0
    folder = tmp_path / "run"
    results = json.loads((folder / "results.json").read_text())
    assert results["task"] == {"name": "segment", "metric": "miou", "decreasing": False}
    assert {"test_miou", "test_loss", "test_pixel_accuracy", "test_mean_class_accuracy"} <= results["results"].keys()
    assert 0 < results["results"]["test_loss"] < 2 * math.log(4)
    for name in ("segments.png", "segments.svg", "class_iou.json", "segmentations.json"):
        assert (folder / name).stat().st_size > 200
    assert len(list((folder / "masks").iterdir())) == 3
    assert "final test miou" in capsys.readouterr().out
