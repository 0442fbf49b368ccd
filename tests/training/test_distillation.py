"""Learning from a teacher: who is found, what is learnt on which head, and what never changes."""

import math
from pathlib import Path

import pytest
import timm
import torch
from timm.models import _registry
from tiny_run import Oracle, TwoHeads, samples

from braincog_transformers.checkpoints import read_checkpoint
from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError
from braincog_transformers.recipe import Options
from braincog_transformers.training import teacher
from braincog_transformers.training.losses import Distillation, build_loss
from braincog_transformers.training.run import run

DIGITS = ["--dataset", "digits", "--model", "spikformer_digits", "--step", "2", "--device", "cpu", "--workers", "0"]
SHORT = ["--epochs", "1", "--warmup-epochs", "0", "--cooldown-epochs", "0", "-b", "8", "--tensorboard-dir", ""]


def _distil(run, name, *, alpha, answer=3, **options):
    return run(
        name, loss=Distillation(build_loss("ce"), alpha=alpha), teacher=Oracle(answer), ema=False, **options
    )  # fmt: skip


def test_a_network_without_distillation_head_learns_the_teacher_on_its_own_logits(run):
    one = _distil(run, "one", alpha=1.0, epochs=8, mixup=False, drop=0.0).fit()
    one.learner.network.eval()
    assert (one.learner.network(samples()[0]).argmax(1) == 3).all()


@pytest.mark.parametrize("amp", [None, "bfloat16"])
def test_each_head_gets_its_own_loss(run, amp):
    one = _distil(run, "one", alpha=0.0, network=TwoHeads, mixup=False, amp=amp, grad_accum=2)
    before = one.learner.network.head_dist.weight.clone()
    for group in one.learner.optimizer.param_groups:
        group["weight_decay"] = 0.0
    one.fit()
    assert torch.equal(one.learner.network.head_dist.weight, before)  # the labels do not reach it
    other = _distil(run, "other", alpha=0.5, network=TwoHeads, epochs=8, mixup=False, amp=amp, grad_accum=2).fit()
    features = torch.relu(other.learner.network.norm(other.learner.network.conv(samples()[0]))).flatten(1)
    assert (other.learner.network.head_dist(features).argmax(1) == 3).all()
    assert not (other.learner.network.head(features).argmax(1) == 3).all()


def test_the_teacher_sees_the_mixed_batch_that_the_network_sees(run):
    one = _distil(run, "one", alpha=0.5, epochs=1, drop=0.0)
    seen = []
    one.learner.network.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, inputs[0])))
    one.fit()
    trained = [x for training, x in seen if training]
    assert len(trained) == len(one.plan_arguments["teacher"].seen) == 6
    assert all(torch.equal(x, y) for x, y in zip(trained, one.plan_arguments["teacher"].seen, strict=True))
    images = samples()[0]
    assert not any((image == images).flatten(1).all(1).any() for image in trained[0])  # mixed indeed


def test_a_distilled_run_resumes_exactly(run):
    whole = _distil(run, "whole", alpha=0.5).fit()
    _distil(run, "part", alpha=0.5).fit(max_steps=8)
    part = _distil(run, "part", alpha=0.5).resume().fit()
    assert all(torch.equal(value, part.weights[name]) for name, value in whole.weights.items())


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory) -> Path:
    """Return the weights of a tiny teacher for the digits."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(timm.create_model("test_resnet", in_chans=1, num_classes=10).state_dict(), path)
    return path


@pytest.fixture
def go(tmp_path, small_digits):
    """Return a function that runs the options given on 32 digits."""
    return lambda *more: run(resolve([*DIGITS, *SHORT, "--output", str(tmp_path), *more]))


@pytest.mark.parametrize("more", [[], ["--distill", "soft", "--distill-tau", "2", "--tet-loss", "--model-ema"]])
def test_a_run_learns_from_a_teacher_that_no_checkpoint_holds(go, teacher_file, more, capsys):
    named = [
        "--teacher",
        "test_resnet",
        "--teacher-checkpoint",
        str(teacher_file),
        "--mixup",
        "0.5",
        "--mixup-prob",
        "1",
    ]
    found = go(*named, *more)
    assert found["steps"] == 4
    assert math.isfinite(found["train_loss"])
    assert "distillation on the network's own logits" in capsys.readouterr().out
    plain = go("--mixup", "0.5", "--mixup-prob", "1", *more[4:])
    states = [read_checkpoint(one["checkpoint"]) for one in (found, plain)]
    assert states[0]["state_dict"].keys() == states[1]["state_dict"].keys()
    assert not all(torch.equal(value, states[1]["state_dict"][name]) for name, value in states[0]["state_dict"].items())


TAUGHT = ["--teacher", "test_resnet", "--max-steps", "2", "--model", "sdt_v2_digits", "--step", "1"]


def test_a_distillation_head_learns_from_the_teacher_alone_and_is_saved(go, teacher_file, capsys):
    taught = [*TAUGHT, "--teacher-checkpoint", str(teacher_file), "--distilled", "--weight-decay", "0"]
    ends = {
        (alpha, steps): read_checkpoint(
            go(*taught, "--distill-alpha", alpha, "--max-steps", steps)["checkpoint"]
        )["state_dict"]
        for alpha in ("0", "0.5")
        for steps in ("1", "2")
    }  # fmt: skip
    assert "distillation on the network's distillation head" in capsys.readouterr().out
    for name, alone in (("head.weight", False), ("head_dist.weight", True)):
        assert torch.equal(ends["0", "1"][name], ends["0", "2"][name]) is alone
        assert not torch.equal(ends["0.5", "1"][name], ends["0.5", "2"][name])


def test_the_stages_of_spike_driven_transformer_v2(go, teacher_file, capsys):
    one = go("--model", "sdt_v2_digits", "--step", "1", "--max-steps", "1")
    four = ["--distilled", "--step", "4", "--initial-checkpoint", one["checkpoint"]]
    lamb = ["--opt", "lamb", "--opt-kwargs", "trust_clip=True", "--sched-on-updates"]
    found = go(*TAUGHT, "--teacher-checkpoint", str(teacher_file), *four, *lamb)
    said = capsys.readouterr().out
    assert found["steps"] == 2
    assert "new distillation head" in said
    assert "T=4" in said


def test_without_the_head_the_network_learns_on_its_own_logits(go, teacher_file, capsys):
    go(*TAUGHT, "--teacher-checkpoint", str(teacher_file))
    assert "distillation on the network's own logits" in capsys.readouterr().out


def _build(name, *, in_chans=3, num_classes=1000, side=64, checkpoint=""):
    options = Options.from_dict({"dataset": "imnet", "teacher": name, "teacher_checkpoint": str(checkpoint)})
    place = torch.device("cpu")
    return teacher.build_teacher(
        options.train, size=(side, side), in_chans=in_chans, num_classes=num_classes, device=place
    )  # fmt: skip


def test_the_teacher_is_frozen_and_in_evaluation_mode(teacher_file):
    built = _build("test_resnet", in_chans=1, num_classes=10, checkpoint=teacher_file)
    assert not built.training
    assert not any(parameter.requires_grad for parameter in built.parameters())
    saved = torch.load(teacher_file, weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in built.state_dict().items())


def test_a_teacher_comes_from_timm_where_braincog_registered_the_name_anew():
    assert not _registry.model_entrypoint("resnet18").__module__.startswith("timm.")
    entry, config = teacher.find_teacher("resnet18")
    assert entry.__module__ == "timm.models.resnet"
    assert config.hf_hub_id == "timm/resnet18.a1_in1k"
    assert (
        teacher.find_teacher("caformer_b36.sail_in22k_ft_in1k")[1].hf_hub_id == "timm/caformer_b36.sail_in22k_ft_in1k"
    )


def _offline(*args, **kwargs):
    raise OSError("no route to the hub")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "caformer_b63"}, r"unknown --teacher 'caformer_b63'; did you mean caformer_b36"),
        ({"name": "caformer_b36.sail_in22q"}, r"unknown weights of --teacher caformer_b36 'sail_in22q'; did you mean"),
        ({"name": "spikformer_digits"}, r"unknown --teacher 'spikformer_digits'"),
        ({"name": "resnet18", "in_chans": 1}, r"take 3 channels and know 1000 classes, the data have 1 and 1000"),
        ({"name": "resnet18", "num_classes": 10}, r"the data have 3 and 10; train a teacher .*--teacher-checkpoint"),
        ({"name": "resnet18"}, r"--teacher resnet18: its weights cannot be had .*no route.*--teacher-checkpoint"),
        ({"name": "test_resnet", "checkpoint": "nowhere.pt"}, r"checkpoint nowhere.pt does not exist"),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_teacher_that_cannot_be_had_is_named(monkeypatch, arguments, message):
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", _offline)
    with pytest.raises(UserError, match=message) as caught:
        _build(**arguments)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_does_not_fit_the_teacher_is_named(teacher_file):
    with pytest.raises(UserError, match=r"--teacher-checkpoint .* does not fit the teacher: .*size mismatch"):
        _build("test_resnet", in_chans=1, num_classes=7, checkpoint=teacher_file)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--as-released"], "--as-released: spikformer_digits has no fault of released code"),
        (["--distilled"], "--distilled: spikformer_digits has no distillation head"),
        (
            ["--model-kwargs", "dpeth=2"],
            "unknown argument of spikformer_digits in --model-kwargs 'dpeth'; did you mean",
        ),
        (["--model-kwargs", "step=2"], "--model-kwargs step: an option of its own"),
        (["--rand-step", "--model", "stsa_ndigits"], "--rand-step: stsa_ndigits keeps its number of steps, because"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_argument_that_the_network_lacks_is_named(go, more, message):
    with pytest.raises(UserError, match=message):
        go(*more)


def test_arguments_of_the_network_reach_it(go):
    found = go("--model-kwargs", "depth=3", "--max-steps", "1")
    assert any(name.startswith("blocks.2.") for name in read_checkpoint(found["checkpoint"])["state_dict"])


def test_the_rate_moves_with_every_step_and_resumes_there(go):
    schedule = ["--sched-on-updates", "--warmup-lr", "0", "--epochs", "2", "--lr", "0.1", "--lr-base-size", "0"]
    rates = [
        read_checkpoint(go(*schedule, "--max-steps", str(steps))["checkpoint"])["optimizer"]["param_groups"][0]["lr"]
        for steps in (1, 3, 5)
    ]
    wanted = [1e-5 + (0.1 - 1e-5) * (1 + math.cos(math.pi * steps / 8)) / 2 for steps in (1, 3, 5)]
    assert rates == pytest.approx(wanted)
