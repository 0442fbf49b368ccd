"""Exported converted networks answer as the network does, all steps in one call."""

import pytest
import timm
import torch
from small_networks import METHOD_NAMES, converted, images
from torch import nn
from toy_conversion import TOY

from braincog_transformers import UserError
from braincog_transformers.conversion import METHODS, Converted, convert, prepare
from braincog_transformers.export import agreement, compile_aot, export, export_program, load_exported, samples_for
from braincog_transformers.nodes.valued import SoftResetNode

# earlier releases of PyTorch export through the compiler, which the suite switches off
pytestmark = pytest.mark.kernels(compiler=False)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(METHODS, "toy", TOY)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act, self.head = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.act(self.first(x)))


@pytest.fixture(scope="module")
def toy_network():
    torch.manual_seed(0)
    METHODS["toy"] = TOY
    network = convert(Plain(), "toy", step=3, data=torch.randn(8, 4))
    del METHODS["toy"]
    network.input_dims = 2
    return network


class Stopping(Converted):
    coding, readout_is, input_dims = "once", "sum", 2

    def settled(self):
        return bool((self.network[1].mem < 1).all())


def test_a_program_takes_all_steps_for_any_number_of_samples(toy_network, tmp_path):
    path = export(toy_network, tmp_path / "net.pt2")
    run = load_exported(path)
    for count in (1, 2, 7):
        x = torch.randn(count, 4)
        assert torch.equal(run(x), toy_network(x))
        assert torch.equal(run(x), run(x))  # no state stays in the file's network


def test_the_network_stays_as_it_is(toy_network, tmp_path):
    stream = torch.randn(2, 4)
    toy_network.forward_step(stream)
    potential = next(iter(toy_network.nodes.values())).mem.clone()
    export_program(toy_network, tmp_path / "net.pt2")
    assert torch.equal(next(iter(toy_network.nodes.values())).mem, potential)
    assert toy_network.stops
    toy_network.reset()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_program_of_each_method_agrees(method, tmp_path):
    network, x = converted(method, step=2), images(7)
    run = load_exported(export(network, tmp_path / "net.pt2", batch=x))
    assert network(x).std(0).max() > 0.01
    for count in (1, 7):
        assert (found := agreement(network, run, x[:count])).holds, str(found)


def test_the_program_of_a_network_that_stops_takes_all_steps(tmp_path):
    network = Stopping(nn.Sequential(nn.Linear(4, 4, bias=False), SoftResetNode(0.5, start=0.0)), 5)
    run = load_exported(export(network, tmp_path / "net.pt2"))
    for x in (torch.rand(3, 4) * 4, torch.zeros(3, 4)):
        assert torch.equal(run(x), network(x))
    assert network.steps_used == 1  # it does stop


def test_onnx_agrees(toy_network, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed; the extra [onnx] brings it")
    run = load_exported(export(toy_network, tmp_path / "net.onnx"))
    x = torch.randn(5, 4)
    assert torch.allclose(run(x), toy_network(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.kernels
def test_a_compiled_package_agrees(toy_network, tmp_path):
    path = compile_aot(toy_network, tmp_path / "net.aot.pt2")
    x = torch.randn(3, 4)
    assert torch.allclose(load_exported(path)(x), toy_network(x), atol=1e-6)


def test_frames_are_a_form_of_their_own(toy_network, tmp_path):
    frames = torch.randn(2, 5, 4)
    run = load_exported(export(toy_network, tmp_path / "net.pt2", batch=frames))
    assert torch.equal(run(frames), toy_network(frames))


def test_samples_are_those_that_the_source_takes():
    samples = samples_for(converted("qcfs"), 3)
    assert samples.shape == (3, 3, 16, 16)
    assert torch.equal(samples, samples_for(converted("qcfs"), 3))
    with pytest.raises(UserError, match=r"Sequential doesn't say what it takes; give batch=, two samples or more"):
        samples_for(convert(nn.Sequential(nn.Conv1d(2, 2, 1), nn.ReLU()), "toy", data=torch.randn(2, 2, 4)))


def test_random_masks_are_refused(tmp_path):
    ann = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    limit = prepare(ann, "qcfs", data=images(), masking_ratio=0.5)
    network = convert(limit, "qcfs", step=2, data=images(), allow_silent=True)
    with pytest.raises(UserError, match="random spike masking draws its masks, which no file does"):
        export(network, tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())
