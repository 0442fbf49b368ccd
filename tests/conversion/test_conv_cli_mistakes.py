"""`--convert` from the command line: mistakes end in one line and status 2, before anything is written."""

import pytest
from cli_runs import RESNET, VIT

FILE = ["--initial-checkpoint", "{weights}"]
BAD = {
    "unknown method": (["--convert", "snn"], "--convert must be one of qcfs, sta, spikezip, rate; got"),
    "unknown option": (
        ["--convert", "qcfs", *VIT, "--convert-kwargs", "level=8", "foo=1"],
        "--convert-kwargs level, foo: qcfs has no such option; it has levels, threshold, percentile",
    ),
    "wrong type": (
        ["--convert", "qcfs", *VIT, "--convert-kwargs", "levels=many"],
        "--convert-kwargs levels: qcfs takes int; got 'many'",
    ),
    "wrong value": (["--convert", "spikezip", *VIT, "--convert-kwargs", "levels=2"], "levels must be a whole number"),
    "no steps": (["--convert", "rate", *VIT, "--step", "0"], "--step must be at least 1; got 0"),
    "no calibration": (["--convert", "sta", *VIT, *FILE, "--calibration-batches", "0"], "must be at least 1; got 0"),
    "no weights": (["--convert", "sta", *VIT], "--convert sta needs a trained network: --initial-checkpoint FILE or"),
    "no weights to calibrate": (["--convert", "qcfs", *VIT, "--calibrate-only"], "--convert qcfs needs a trained"),
    "spiking already": (
        ["--convert", "rate", "--model", "spikformer_digits", *FILE],
        "--convert rate: spikformer_digits spikes already, so there is nothing to convert; name an ordinary network",
    ),
    "spiking network of BrainCog": (
        ["--convert", "rate", "--model", "resnet9", *FILE, "--dataset", "cifar10"], "resnet9 spikes already"
    ),
    "unknown model": (["--convert", "rate", "--model", "resnet81", *FILE], "unknown model 'resnet81'; did you mean"),
    "another method's network": (
        ["--convert", "sta", "--model", "masked_spiking_transformer_digits", *FILE],
        "--convert sta: masked_spiking_transformer_digits is the network of --convert qcfs; use that",
    ),
    "ordinary network": (["--model", "vit_small_patch16_224"], "is an ordinary network, which --convert METHOD makes"),
    "impossible size": (
        ["--convert", "rate", "--model", "vit_tiny_patch16_224", *FILE], "does not take images of 1x8x8: "
    ),
    "unknown argument": (
        ["--convert", "rate", *VIT, "depht=2", *FILE], "can't be built for images of 8x8: TypeError: "
    ),
    "argument of an option": (["--convert", "rate", *VIT, "num_classes=3", *FILE], "num_classes: an option of its own"),
    "no classifier": (
        ["--convert", "rate", *RESNET, "features_only=True", *FILE], "is no classifier: it answers list for an image"
    ),
    "nothing that a method knows": (
        ["--convert", "rate", *VIT[:-1], *FILE],
        "rate doesn't know the gelu in blocks.0.mlp.act (qcfs, sta, spikezip know it)",
    ),
    "misfit": (
        ["--convert", "rate", *VIT, "mlp_ratio=1.0", *FILE],
        "does not fit VisionTransformer: 3 of another shape: blocks.0.mlp.fc1.bias",
    ),
    "missing file": (["--convert", "rate", *VIT, "--initial-checkpoint", "no.pth"], "checkpoint no.pth does not exist"),
    "published for other classes": (
        ["--convert", "rate", *VIT, "--pretrained"],
        "the published weights of vit_tiny_patch16_224 know 1000 classes, and the data have 10",
    ),
    "event data": (
        ["--convert", "rate", *VIT, *FILE, "--dataset", "ndigits"], "--convert: for image data only; ndigits"
    ),
    "neuron options": (
        ["--convert", "rate", *VIT, *FILE, "--tau", "2", "--encode", "rate", "--tet-loss"],
        "--tau, --encode, --tet-loss: for networks that spike from the start, not for --convert; leave it out",
    ),
    "training without training": (
        ["--convert", "sta", *VIT, *FILE, "--epochs", "3", "--mixup", "0.1", "--mixup-prob", "1", "--amp"],
        "--convert sta trains nothing; leave it out",
    ),
    "training when calibrating": (
        ["--convert", "qcfs", *VIT, *FILE, "--calibrate-only", "--lr", "3"],
        "--lr: --convert qcfs --calibrate-only trains nothing; leave it out",
    ),
    "calibrating alone": (
        ["--convert", "rate", *VIT, *FILE, "--calibrate-only"], "--calibrate-only: --convert rate"
    ),
    "without --convert": (
        ["--convert-kwargs", "levels=8", "--calibrate-only"],
        "--convert-kwargs, --calibrate-only: without effect as long as no --convert is given",
    ),
    "source as teacher of others": (["--teacher", "source"], "--teacher source is the network that --convert converts"),
    "evaluation of weights": (
        ["--convert", "rate", *VIT, "--eval_checkpoint", "{weights}"], "is no converted network; --initial-checkpoint"
    ),
    "export before the conversion": (
        ["--convert", "rate", *VIT, *FILE, "--export", "x.onnx"], "--export writes a network that is converted"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_and_nothing_is_written(go, weights, tmp_path, name):
    given, message = BAD[name]
    status, out, err = go("--dataset", "digits", *(text.format(weights=weights) for text in given))
    assert (status, len(err.splitlines())) == (2, 1)
    assert message in err
    assert "wrote" not in out
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
