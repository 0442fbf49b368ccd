"""Learning rates against values by hand, and the optimizer's groups."""

import math

import pytest
import timm
import torch
from torch import nn

from braincog_transformers.cli import _check_names, resolve
from braincog_transformers.errors import UserError
from braincog_transformers.recipe.groups import OptimOptions, SchedOptions
from braincog_transformers.training.optim import build_optimizer, build_schedule, scaled_rate


def _rates(**options):
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=options.pop("rate"))
    scheduler, epochs = build_schedule(optimizer, SchedOptions(**options), decreasing=False, seed=1, updates=1)
    rates = []
    for epoch in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch + 1, 0.0)
    return rates


def test_published_cifar10_schedule_of_spikformer():
    # specs: warm-up from the start rate, then straight onto the cosine, then the lowest rate; 310 epochs in all.
    # timm agrees with this formula in every epoch, since the warm-up is not a prefix of the cosine
    rates = _rates(rate=5e-4, epochs=300, warmup_epochs=20, warmup_lr=1e-5, min_lr=1e-5, cooldown_epochs=10)
    assert len(rates) == 310
    for epoch, rate in enumerate(rates):
        if epoch < 20:
            wanted = 1e-5 + epoch * (5e-4 - 1e-5) / 20
        elif epoch < 300:
            wanted = 1e-5 + (5e-4 - 1e-5) * (1 + math.cos(math.pi * epoch / 300)) / 2
        else:
            wanted = 1e-5
        assert rate == pytest.approx(wanted, rel=1e-9)


def test_half_cosine_by_optimizer_step_with_warm_up_from_zero():
    # the ImageNet recipes of QKFormer, SGLFormer and SDT V2: 2 epochs of warm-up, then 8 of half cosine, 5 steps each
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.2e-3)
    options = SchedOptions(
        epochs=8, warmup_epochs=2, warmup_lr=0.0, warmup_prefix=True, min_lr=1e-6, cooldown_epochs=0,
        sched_on_updates=True,
    )  # fmt: skip
    scheduler, epochs = build_schedule(optimizer, options, decreasing=False, seed=1, updates=5)
    assert epochs == 10
    for step in range(50):
        if step < 10:
            wanted = 1.2e-3 * step / 10
        else:
            wanted = 1e-6 + (1.2e-3 - 1e-6) * (1 + math.cos(math.pi * (step - 10) / 40)) / 2
        assert optimizer.param_groups[0]["lr"] == pytest.approx(wanted, rel=1e-9, abs=1e-15)
        scheduler.step_update(step + 1)
        scheduler.step((step + 1) // 5)


def test_step_schedule_by_hand():
    rates = _rates(rate=1.0, sched="step", epochs=5, decay_epochs=2, decay_rate=0.1, warmup_epochs=0, cooldown_epochs=0)
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_poly_takes_its_exponent_from_power():
    options = {"sched": "poly", "epochs": 4, "warmup_epochs": 0, "cooldown_epochs": 0, "min_lr": 0.0}
    assert _rates(rate=1.0, power=2.0, **options) == pytest.approx([1, 0.5625, 0.25, 0.0625])


def test_noise_stays_within_its_share_and_repeats():
    options = {"rate": 1.0, "epochs": 10, "warmup_epochs": 0, "cooldown_epochs": 0, "lr_noise": (0.2,), "min_lr": 0.0}
    plain = _rates(**{**options, "lr_noise": None})
    noisy = _rates(**options, lr_noise_pct=0.5)
    assert noisy == _rates(**options, lr_noise_pct=0.5)
    assert noisy[:2] == plain[:2]
    assert noisy[3:] != plain[3:]
    assert all(abs(a - b) <= 0.5 * b for a, b in zip(noisy, plain, strict=True))


def test_rate_is_scaled_with_the_effective_batch():
    assert scaled_rate(5e-3, batch=16, base=1024) == pytest.approx(7.8125e-5)
    assert scaled_rate(6e-4, batch=32 * 8 * 2, base=256) == pytest.approx(1.2e-3)  # QKFormer's, SDT V2's blr
    assert scaled_rate(5e-3, batch=16, base=0) == 5e-3


def test_weight_decay_spares_biases_norms_and_thresholds():
    import timm

    network = timm.create_model("spikformer_digits")
    optimizer = build_optimizer(network, OptimOptions(weight_decay=0.05), lr=1e-3)
    decayed = [group for group in optimizer.param_groups if group["weight_decay"] > 0]
    assert {parameter.ndim for group in decayed for parameter in group["params"]} <= {2, 3, 4}
    assert optimizer.defaults["betas"] == (0.9, 0.999)


def test_optimizers_that_cannot_be_had_are_named():
    network = nn.Linear(2, 2)
    with pytest.raises(UserError, match="did you mean adamw"):
        build_optimizer(network, OptimOptions(opt="adamww"), lr=1.0)
    with pytest.raises(UserError, match="second derivatives"):
        build_optimizer(network, OptimOptions(opt="adahessian"), lr=1.0)


def test_the_command_line_takes_the_optimizers_that_training_takes():
    _check_names(resolve(["--dataset", "digits", "--model", "spikformer_digits", "--opt", "lookahead_adamw"]))
    with pytest.raises(UserError, match="second derivatives"):
        _check_names(resolve(["--dataset", "digits", "--model", "spikformer_digits", "--opt", "adahessian"]))


def test_arguments_of_an_optimizer_reach_it():
    network = nn.Linear(2, 2)
    optimizer = build_optimizer(network, OptimOptions(opt="lamb", opt_kwargs=("trust_clip=True",)), lr=1.0)
    assert optimizer.defaults["trust_clip"] is True
    assert optimizer.defaults["max_grad_norm"] == 1.0  # what Spike-driven Transformer V2 relies on
    with pytest.raises(UserError, match=r"--opt adamw refuses its options: .*'trust_clap'"):
        build_optimizer(network, OptimOptions(opt_kwargs=("trust_clap=True",)), lr=1.0)


def test_layer_decay_lowers_the_rate_from_the_classifier_to_the_stem():
    network = timm.create_model("sdt_v3_83m", embed_dim=16, depth=2, num_heads=2, img_size=16)
    optimizer = build_optimizer(network, OptimOptions(layer_decay=0.5, weight_decay=0.05), lr=1.0)
    options = SchedOptions(epochs=4, warmup_epochs=0, min_lr=0.0, cooldown_epochs=0)
    scheduler, _ = build_schedule(optimizer, options, decreasing=False, seed=1, updates=1)
    names = {parameter: name for name, parameter in network.named_parameters()}
    shares = {"patch_embed": 1 / 8, "blocks.0": 1 / 4, "blocks.1": 1 / 2, "head": 1.0}
    for epoch, rate in enumerate([1.0, (1 + math.cos(math.pi / 4)) / 2]):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                share = next(share for start, share in shares.items() if names[parameter].startswith(start))
                assert group["lr"] == pytest.approx(rate * share)
                assert group["weight_decay"] == (0.05 if parameter.dim() > 1 else 0)
        scheduler.step(epoch + 1)
