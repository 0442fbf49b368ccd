"""`--convert` from the command line: what is printed and written, goes on, and is evaluated again."""

import csv
import json
from dataclasses import replace

import pytest
import torch
import yaml
from cli_runs import LEVELS, QUICK, RESNET, RUN, SHORT, STEPS, VIT, few_digits

from braincog_transformers.conversion import METHODS, load_converted
from braincog_transformers.data.loading.loader import make_loader
from braincog_transformers.export import load_exported
from braincog_transformers.models.timm_networks import find_timm
from braincog_transformers.recipe import ENTRIES
from braincog_transformers.recipe.options import TRAINING_FREE
from braincog_transformers.training import converting


def table(folder):
    return json.loads((folder / "conversion.json").read_text())["rows"]


def test_the_options_name_the_methods():
    assert {*ENTRIES["convert"].metadata["choices"]} == {"", *METHODS}
    assert {*TRAINING_FREE} == {name for name, method in METHODS.items() if not method.trains}


@pytest.mark.parametrize("method", STEPS)
def test_a_conversion_is_told_in_one_table_and_its_file_keeps_the_accuracy(convert, go, method):
    folder, out = convert(method)
    rows, last = table(folder), STEPS[method]
    assert [(row["network"], row["step"]) for row in rows[:4]] == [
        ("source", None), ("limit", None), ("spiking", 1), ("spiking", 2)
    ]  # fmt: skip
    assert rows[-1]["step"] == last
    assert rows[0]["top1"] > 60
    assert all(row["energy"] > 0 for row in rows)
    with open(folder / "conversion.csv", newline="") as file:
        assert [float(row["top1"]) for row in csv.DictReader(file)] == [row["top1"] for row in rows]
    printed = [line.split()[:3] for line in out.splitlines() if line.startswith(("source", "limit", "spiking"))]
    assert ["spiking", str(last), f"{rows[-1]['top1']:.2f}"] in printed
    for name in ("conversion.json", "conversion.csv", "conversion.png", "converted.safetensors"):
        assert f"wrote {folder / name}" in out
    assert {"conversion.svg", "args.yaml", "results.json"} <= {path.name for path in folder.iterdir()}
    results = json.loads((folder / "results.json").read_text())
    assert (results["kind"], results["checkpoint"]) == ("conversion", "converted.safetensors")
    assert (results["model"]["step"], results["model"]["name"]) == (last, "vit_tiny_patch16_224")

    status, out, err = go("--eval_checkpoint", str(folder), *RUN, "--experiment", "again", "--spike-rate")
    assert (status, err) == (0, "")
    again = json.loads((folder.with_name("again") / "results.json").read_text())["results"]
    assert again["test_top1"] == rows[-1]["top1"] == results["results"]["test_top1"]
    assert again["test_loss"] == pytest.approx(rows[-1]["loss"], rel=1e-5)
    assert f"vit_tiny_patch16_224, converted by {method}, T={last}, from" in out


def test_the_limit_is_trained_and_an_interrupted_run_goes_on_to_the_same_file(convert, go):
    taught = ["--teacher", "source", "--distill", "soft", *QUICK]
    whole, out = convert("spikezip", *taught, name="whole", trains=True)
    assert "teacher: the source itself, soft distillation" in out
    assert "epoch 2/2" in out
    assert {"last.pth.tar", "curves.png", "summary.csv"} <= {path.name for path in whole.iterdir()}
    part, _ = convert("spikezip", *taught, "--max-steps", "4", name="part", trains=True)
    assert (part / "converted.safetensors").read_bytes() != (whole / "converted.safetensors").read_bytes()
    status, _, err = go("-c", str(part / "args.yaml"), "--resume", str(part), "--max-steps", "1000")
    assert (status, err) == (0, "")
    for name in ("converted.safetensors", "conversion.csv", "summary.csv"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()


def test_a_file_of_a_prepared_network_is_converted_without_training(convert, go, tmp_path):
    trained, _ = convert("spikezip", *QUICK, name="trained", trains=True)
    file = str(trained / "last.pth.tar")
    given = [*VIT, *RUN, *SHORT, *QUICK, "--initial-checkpoint", file]
    status, out, err = go("--convert", "spikezip", *given, *LEVELS, "--experiment", "two")
    assert (status, err) == (0, "")
    assert "epoch" not in out
    assert "the file holds the prepared network, which is not trained" in out
    rows = table(tmp_path / "two")
    assert rows[0]["network"] == "limit"
    assert [row["top1"] for row in rows] == [row["top1"] for row in table(trained)[1:]]
    further = ["--resume", file, "--no-resume-opt", "--max-steps", "1", "--experiment", "further"]
    assert "epoch 1/2" in go("--convert", "spikezip", *given, *LEVELS, *further)[1]

    status, _, err = go("--convert", "spikezip", *given, "--experiment", "three")
    assert status == 2
    assert "the weights were trained with 8 levels" in err
    assert "has 32" in err
    status, _, err = go("--convert", "qcfs", *given, "--experiment", "three")
    assert (status, err) == (
        2,
        f"error: --initial-checkpoint {file} was trained for --convert spikezip, not for qcfs\n",
    )
    again = ["--teacher", "source", "--resume", file, "--no-resume-opt", "--experiment", "four"]
    status, _, err = go("--convert", "spikezip", *given, *LEVELS, *again)
    assert status == 2
    assert "--teacher source: its weights are random, or those of its prepared form" in err


def test_a_papers_own_network_is_prepared_from_the_start(go, tmp_path):
    model = ["--convert", "qcfs", "--model", "masked_spiking_transformer_digits", *RUN, "--step", "2", "--allow-silent"]
    status, out, err = go(*model, *SHORT, "--max-steps", "1", "--experiment", "one")
    assert (status, err) == (0, "")
    assert "starts from random weights" in out
    assert [row["network"] for row in table(tmp_path / "one")][:2] == ["limit", "spiking"]
    status, out, _ = go(*model, "--initial-checkpoint", str(tmp_path / "one" / "last.pth.tar"), "--experiment", "two")
    assert status == 0
    assert "epoch" not in out


def test_a_convolutional_network_of_timms_own_is_converted(go, tmp_path):
    torch.manual_seed(0)
    build, config = find_timm("resnet18")
    network = build(pretrained_cfg=config, layers=[1, 1, 1, 1], channels=[4, 4, 8, 8], in_chans=1, num_classes=10)
    torch.save({"model": network.state_dict()}, tmp_path / "resnet.pth")
    given = ["--initial-checkpoint", str(tmp_path / "resnet.pth"), "--step", "2", "--experiment", "one"]
    status, _, err = go("--convert", "rate", *RESNET, *RUN, *given, "--allow-silent")
    assert (status, err) == (0, "")
    loaded = load_converted(tmp_path / "one" / "converted.safetensors")
    assert type(loaded.network) is type(network)


def test_the_report_has_a_section_with_table_and_charts(convert):
    folder, out = convert("rate", "--report")
    assert f"report {folder / 'report.html'}" in out
    page = (folder / "report.html").read_text()
    assert 'id="conversion"' in page
    assert 'aria-label="top-1 accuracy, % by T"' in page
    assert "Mueller et al." in page
    assert "converted " in page
    assert {"energy.json", "audit.json", "rates.json"} <= {path.name for path in folder.iterdir()}


def test_calibration_data_are_training_samples_in_the_order_of_the_seed_and_not_augmented(convert, monkeypatch):
    seen, calibration_data = [], converting.calibration_data
    monkeypatch.setattr(converting, "calibration_data", lambda parts: seen.append(calibration_data(parts)) or seen[-1])
    convert("qcfs", "--calibration-batches", "2", "--seed", "3", "--max-steps", "1", "--hflip", "1", trains=True)
    plain = few_digits("digits", ".").test
    plain = replace(plain, source=few_digits("digits", ".").train.source)
    loader = make_loader(plain, batch_size=64, train=True, seed=3)
    expected = [x for (x, _), _ in zip(loader, range(2), strict=False)]
    assert len(seen[0]) == 2
    assert all(torch.equal(x, y) for x, y in zip(seen[0], expected, strict=True))


def test_a_stop_after_the_training_says_how_to_go_on(convert, weights, go, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(converting, "convert_limit", stopped)
    given = ["--initial-checkpoint", weights, *SHORT, "--max-steps", "1", "--experiment", "one"]
    status, _, err = go("--convert", "qcfs", *VIT, *RUN, *given)
    folder = tmp_path / "one"
    assert (status, err) == (
        130, "stopped after the training, which is saved; convert with: "
        f"main.py -c {folder / 'args.yaml'} --resume {folder}\n"
    )  # fmt: skip


def test_layers_that_never_fire_are_named_and_nothing_is_written(go, weights, tmp_path):
    state = torch.load(weights)
    state["blocks.0.mlp.fc1.bias"] -= 100
    torch.save(state, tmp_path / "dead.pth")
    given = ["--initial-checkpoint", str(tmp_path / "dead.pth"), "--step", "4", "--experiment", "one"]
    status, _, err = go("--convert", "rate", *VIT, *RUN, *given)
    assert status == 2
    assert "in 4 steps these layers never fire on 16 samples of the data: network.blocks.0.mlp.act (threshold 1)" in err
    assert {path.name for path in (tmp_path / "one").iterdir()} <= {".lock"}
    assert go("--convert", "rate", *VIT, *RUN, *given, "--allow-silent")[0] == 0


# A converted file elsewhere


def test_a_converted_file_is_named_exported_and_evaluated_with_another_t(convert, go, tmp_path):
    folder, _ = convert("rate")
    file = folder / "converted.safetensors"
    assert go("--identify", str(file))[1].startswith("vit_tiny_patch16_224, converted by rate, T=4; --eval_checkpoint")
    status, out, err = go("--eval_checkpoint", str(file), *RUN, "--step", "2", "--experiment", "two", "--analyze")
    assert (status, err) == (0, "")
    assert "T=2" in out
    assert (
        json.loads((tmp_path / "two" / "results.json").read_text())["results"]["test_top1"] == table(folder)[3]["top1"]
    )
    # a run's own options fit its own file
    assert go("-c", str(folder / "args.yaml"), "--eval_checkpoint", str(file), "--experiment", "three")[0] == 0
    assert yaml.safe_load((folder / "args.yaml").read_text())["convert"] == "rate"
    exported = tmp_path / "rate.pt2"
    status, out, _ = go("--export", str(exported), "--eval_checkpoint", str(file), "--dataset", "digits", "--step", "2")
    assert status == 0
    assert "8 of 8 samples agree" in out
    assert load_exported(exported)(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_what_contradicts_a_converted_file_is_named(convert, go):
    folder, _ = convert("rate", "--convert-kwargs", "percentile=0.9")
    file, evaluates = folder / "converted.safetensors", ["--eval_checkpoint", str(folder), *RUN]
    for more, message in (
        (["--model", "spikformer_digits"], f"--model spikformer_digits: {file} holds a network made of vit_tiny"),
        (["--model", "spikformer"], f"--model spikformer: {file} holds a network made of vit_tiny_patch16_224"),
        (["--dataset", "mnist"], ""),
        (["--dataset", "dvsc10"], f"{file} holds a network of images, and dvsc10 holds event data"),
        (["--dataset", "imnet"], f"{file} holds a network of images of 1 channels, and those of imnet have 3"),
        (["--convert", "sta"], f"--convert sta: {file} was converted by rate"),
        (["--convert", "rate", "--convert-kwargs", "percentile=1.0"], "percentile=1.0: "),
        (["--model-kwargs", "depth=2"], f"--model-kwargs depth=2: {file} holds a network with 1"),
        (["--threshold", "2"], "--threshold: "),
        (["--spiking-inference"], "--spiking-inference: "),
        (["--initial-checkpoint", str(file)], ""),
    ):
        status, _, err = go(*evaluates, *more)
        if message:
            assert (status, len(err.splitlines())) == (2, 1)
            assert message in err
    status, _, err = go("--convert", "rate", *VIT, *RUN, "--initial-checkpoint", str(file))
    assert (status, err) == (
        2,
        f"error: --initial-checkpoint {file} is converted already; --eval_checkpoint evaluates it\n",
    )
