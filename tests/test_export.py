"""Exported networks answer as the network does, for any number of samples; what can't leave is refused in one line."""

import copy

import pytest
import timm
import torch
from families import FAMILIES, family_of

from braincog_transformers import UserError, cli, export
from braincog_transformers.export import agreement, compile_aot, export_onnx, export_program, load_exported, samples_for

# every family once, event frames through a network of images, and a sequence
EXAMPLES = [*(family.EXAMPLE for family in FAMILIES), "spikformer_2_256_dvs", "tim_2_256_shd"]
# earlier releases of PyTorch export through the compiler, which the suite switches off
pytestmark = pytest.mark.kernels(compiler=False)


def awake(name, **kwargs):
    """Build a tiny network whose neurons fire and whose logits differ from sample to sample."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{**family_of(name).TINY, **kwargs})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1, 3)
            torch.nn.init.uniform_(module.bias, 0, 1.5)
            module.momentum = None  # one call sets the running statistics
    with torch.no_grad():
        model.head.weight *= 10
        if kwargs.get("node_type", "LIFNode") == "LIFNode":
            model(samples_for(model, 7))
    return model.eval()


def wants(*packages):
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed; the extra [onnx] brings it")


def outcome(model, path, count):
    """Return the agreement on `count` samples; the network must tell at least two samples apart."""
    batch = samples_for(model, 7)
    assert model(batch).std(0).max() > 0.01
    return agreement(model, load_exported(path), batch[:count])


# ONNX takes the same road, for every family
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdt_v2_15m", "spikformer_2_256_dvs", "tim_2_256_shd"])
def test_a_program_agrees_for_any_batch(name, tmp_path):
    model = awake(name).double()  # in which no spike lies so close to the threshold that rounding flips it
    path = export_program(model, tmp_path / "network.pt2")
    for count in (1, 2, 7):
        found = outcome(model, path, count)
        assert (found.samples, found.close, found.same_top1) == (count, count, True), str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_onnx_of_every_family_agrees_for_any_batch(name, tmp_path):
    wants("onnx", "onnxscript", "onnxruntime")
    model = awake(name)
    path = export_onnx(model, tmp_path / "network.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]
    found = outcome(model, path, 7)
    # with random weights, samples whose spikes flip may change their first class; a wrong network moves every sample
    assert 4 * found.close >= found.samples, str(found)
    assert load_exported(path)(samples_for(model, 1)).shape == (1, 5)


@pytest.mark.slow
@pytest.mark.kernels
def test_a_compiled_package_agrees_for_any_batch(tmp_path):
    model = awake("spikformer_digits", depth=1)
    path = compile_aot(model, tmp_path / "network.aot.pt2")
    assert [outcome(model, path, count).close for count in (1, 7)] == [1, 7]


def test_the_network_stays_as_it_is(tmp_path):
    model = awake("spikformer_digits").train()
    model.set_attr("requires_fp", True)
    batch = samples_for(model, 2)
    model(batch)  # leaves recorded spikes with a history
    state, recorded = copy.deepcopy(model.state_dict()), [node.feature_map for node in model.nodes.values()]
    export_program(model, tmp_path / "network.pt2")
    assert model.training
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if name.endswith("weight"))
    assert all(node.requires_fp for node in model.nodes.values())
    assert all(a is b.feature_map for a, b in zip(recorded, model.nodes.values(), strict=True))
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())


def test_agreement_forgives_flipped_spikes_and_nothing_else():
    model = awake("spikformer_digits")
    batch = samples_for(model, 8)
    expected = model(batch).detach()
    one_flip = expected.clone()
    one_flip[3, expected[3].argmax()] += 0.01
    found = agreement(model, lambda _: one_flip, batch)
    assert (found.close, found.holds) == (7, True)
    assert found.largest == pytest.approx(0.01, rel=1e-3)
    assert not agreement(model, lambda _: expected + 0.001, batch).holds
    other_class = expected.clone()
    other_class[3, expected[3].argmin()] += 10
    assert not agreement(model, lambda _: other_class, batch).holds


def test_a_file_that_disagrees_is_not_written(tmp_path, monkeypatch):
    wants("onnx", "onnxscript", "onnxruntime")
    path = tmp_path / "network.onnx"
    path.write_text("earlier")
    monkeypatch.setattr(export, "load_exported", lambda _: lambda x: torch.ones(len(x), 5))
    with pytest.raises(UserError, match="does not compute what the network does: 0 of 8 samples"):
        export_onnx(awake("spikformer_digits", depth=1), path)
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]
    assert path.read_text() == "earlier"


def test_onnx_without_its_packages_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'braincog_tr.*\[onnx\]'"):
        export_onnx(awake("spikformer_digits"), tmp_path / "network.onnx")


def test_what_onnx_has_no_form_of_is_told(tmp_path):
    wants("onnx", "onnxscript")
    with pytest.raises(UserError, match="has no form in ONNX: "):
        export_onnx(awake("spikformer_digits", depth=1, encode_type="phase"), tmp_path / "network.onnx", check=False)
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_no_package(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("No working C++ compiler found\nin detail")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", broken)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler, on a GPU Triton: No working C\+\+ compiler found$"):
        compile_aot(awake("spikformer_digits", depth=1), tmp_path / "network.aot.pt2")
    assert not list(tmp_path.iterdir())


def by_step():
    model = awake("spikformer_digits")
    model.set_attr("layer_by_layer", False)
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), "a network of this package can be exported, not Linear"),
        (by_step, "step by step, neurons keep a state"),
        (lambda: awake("stsa_ndigits", as_released=True), "samples of a batch depend on each other"),
        (lambda: awake("spikformer_digits", encode_type="rate"), "draws spikes at random"),
        (lambda: awake("spikformer_digits", node_type="NoiseLIFNode"), "NoiseLIFNode draws noise"),
    ],
    ids=["foreign", "by_step", "released", "rate", "noise"],
)
def test_what_cannot_leave_is_refused(build, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export_program(build(), tmp_path / "network.pt2")
    assert not list(tmp_path.iterdir())


def test_a_batch_of_one_would_fix_the_size(tmp_path):
    model = awake("spikformer_digits")
    with pytest.raises(UserError, match="needs two samples"):
        export_program(model, tmp_path / "network.pt2", batch=samples_for(model, 1))


@pytest.mark.parametrize(
    ("name", "message"),
    [("network.so", "ends in .onnx, .aot.pt2, .pt2"), ("none/network.pt2", "no such folder"), ("", "ends in")],
)
def test_bad_paths(name, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export.export(awake("spikformer_digits"), tmp_path / name)
    with pytest.raises(UserError, match="no exported network at"):
        load_exported(tmp_path / "missing.onnx")


def run_cli(capsys, *arguments):
    status = cli.main(["--dataset", "digits", "--model", "spikformer_digits", "--device", "cpu", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out.splitlines() + printed.err.splitlines()


def test_command_line(tmp_path, capsys):
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("spikformer_digits").state_dict(), weights)
    target = tmp_path / "network.pt2"
    status, lines = run_cli(capsys, "--export", target, "--eval_checkpoint", weights)
    assert status == 0, lines
    assert lines[-2].startswith(f"{target}: ")
    assert lines[-2].endswith("MiB, input (B, 1, 8, 8), fused")
    assert lines[-1].startswith("8 of 8 samples agree to 0.0001, top-1 equal")
    torch.save(timm.create_model("spikformer_digits", depth=1).state_dict(), weights)
    for arguments, message in (
        (["--export", target], "--export needs weights"),
        (["--export", tmp_path / "a.bin", "--eval_checkpoint", weights], "ends in .onnx"),
        (["--export", target, "--eval_checkpoint", weights], "does not fit Spikformer"),
        (["--export"], "--export: expected one argument"),
        (["--export", target, "--eval_checkpoint", weights, "--device", "cuda:99"], "--device cuda:99"),
    ):
        status, lines = run_cli(capsys, *arguments)
        assert status == 2
        assert len(lines) == 1, lines
        assert message in lines[0]
