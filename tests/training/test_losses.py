"""Losses against values by hand, and on soft targets."""

import math

import pytest
import torch
from timm.data import Mixup

from braincog_transformers.errors import UserError
from braincog_transformers.training.loaders import EventMixer, ImageMixer
from braincog_transformers.training.losses import (
    Distillation,
    build_loss,
    dominating_label,
    mean_over_steps,
    soft_labels,
)


def test_tet_by_hand():
    # two steps, one sample, two classes: softmax of (0, ln 3) is (1/4, 3/4), of (0, 0) is (1/2, 1/2)
    logits = torch.tensor([[[0.0, math.log(3.0)]], [[0.0, 0.0]]])
    target = torch.tensor([1])
    cross_entropy = (math.log(4 / 3) + math.log(2)) / 2
    pull = (3 * 1.0 + (math.log(3.0) - 1) ** 2) / 4
    assert build_loss("ce", tet=True)(logits, target).item() == pytest.approx(cross_entropy)
    weighed = build_loss("ce", tet=True, tet_weight=0.3, tet_mean=1.0)(logits, target).item()
    assert weighed == pytest.approx(0.7 * cross_entropy + 0.3 * pull)


def test_tet_needs_the_logits_of_every_step():
    with pytest.raises(ValueError, match="every step"):
        build_loss("ce", tet=True)(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("name", ["ce", "mse", "bce"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_indices_equal_their_smoothed_distribution(name, smoothing):
    torch.manual_seed(0)
    logits, target = torch.randn(5, 4), torch.tensor([0, 3, 1, 2, 2])
    soft = soft_labels(target, num_classes=4, smoothing=smoothing)
    loss = build_loss(name, smoothing=smoothing)
    torch.testing.assert_close(loss(logits, target), loss(logits, soft))


def test_cross_entropy_and_squared_error_by_hand():
    logits, target = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([1])
    assert build_loss("ce")(logits, target).item() == pytest.approx(math.log(4 / 3))
    assert build_loss("mse")(logits, target).item() == pytest.approx((math.log(3.0) - 1) ** 2 / 2)


def test_distillation_by_hand():
    # softmax of (0, ln 3) is (1/4, 3/4), of (0, 0) is (1/2, 1/2), of (ln 9, 0) is (9/10, 1/10)
    logits, distilled = torch.tensor([[0.0, math.log(3.0)]]), torch.zeros(1, 2)
    taught, target = torch.tensor([[math.log(9.0), 0.0]]), torch.tensor([1])
    labels = math.log(4 / 3)
    hard = Distillation(build_loss("ce"), kind="hard", alpha=0.25)(logits, distilled, target, taught)
    assert hard.item() == pytest.approx(0.75 * labels + 0.25 * math.log(2))
    # at temperature 2 the teacher says (3/4, 1/4); divided by the two elements, times 4
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    soft = Distillation(build_loss("ce"), kind="soft", alpha=0.25, tau=2.0)(logits, distilled, target, taught)
    assert soft.item() == pytest.approx(0.75 * labels + 0.25 * divergence / 2 * 4)


def test_distillation_takes_the_mean_over_steps_where_the_labels_take_each():
    steps = torch.tensor([[[0.0, 2.0]], [[0.0, 0.0]]])
    loss = Distillation(build_loss("ce", tet=True), alpha=1.0)
    apart = Distillation(build_loss("ce"), alpha=1.0)
    target, taught = torch.tensor([0]), torch.tensor([[1.0, 0.0]])
    assert loss(steps, steps, target, taught) == apart(steps.mean(0), steps.mean(0), target, taught)


def test_unknown_loss_and_bad_numbers_are_named():
    with pytest.raises(UserError, match="did you mean mse"):
        build_loss("msee")
    with pytest.raises(UserError, match="--smoothing"):
        build_loss("ce", smoothing=1.0)
    with pytest.raises(UserError, match="second term"):
        build_loss("ce", tet=True, tet_weight=2.0)


def test_accuracy_counts_against_the_dominating_label():
    assert dominating_label(torch.tensor([[0.3, 0.6, 0.1], [0.8, 0.1, 0.1]])).tolist() == [1, 0]
    assert dominating_label(torch.tensor([2, 1])).tolist() == [2, 1]
    assert mean_over_steps(torch.tensor([[[1.0]], [[3.0]]])).tolist() == [[2.0]]


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (5, 3, 8, 8), (4, 2, 3, 8, 8), (1, 3, 8, 8)])
def test_image_mixer_keeps_the_batch_of_the_loader(shape):
    mixer = ImageMixer(Mixup(mixup_alpha=0.5, cutmix_alpha=1.0, num_classes=4, label_smoothing=0.1))
    x, target = torch.rand(shape), torch.arange(shape[0]) % 4
    before = x.clone()
    mixed, soft = mixer(x, target, torch.Generator())
    assert torch.equal(x, before)
    kept = max(shape[0] - shape[0] % 2, 1)
    assert mixed.shape == (kept, *shape[1:])
    torch.testing.assert_close(soft.sum(1), torch.ones(kept))


def test_cutmix_cuts_the_same_box_from_every_frame():
    mixer = ImageMixer(Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, num_classes=4))
    x = torch.stack([torch.zeros(3, 2, 8, 8), torch.ones(3, 2, 8, 8)])
    for _ in range(10):
        mixed, _ = mixer(x, torch.tensor([0, 1]), torch.Generator())
        assert (mixed == mixed[:, :1, :1]).all()


def test_event_mixer_smooths_before_it_mixes():
    seen = {}

    def mixer(x, soft, generator):
        seen["soft"] = soft
        return x, soft

    EventMixer([mixer], num_classes=4, smoothing=0.2)(torch.zeros(1, 1, 1, 1, 1), torch.tensor([2]), torch.Generator())
    torch.testing.assert_close(seen["soft"], torch.tensor([[0.05, 0.05, 0.85, 0.05]]))


def test_event_mixers_work_one_after_the_other():
    def add(number):
        return lambda x, soft, generator: (x * 10 + number, soft)

    x, _ = EventMixer([add(1), add(2)], num_classes=4)(torch.zeros(1, 1, 1, 1, 1), torch.tensor([2]), torch.Generator())
    assert x.item() == 12
