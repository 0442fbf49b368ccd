"""Every vector of the official networks: outputs to 1e-9, gradients to 1e-6, in float64."""

import functools
import json
import logging
from pathlib import Path

import pytest
import torch
from families import builder_of, masked, masked_in, vectors_in
from families.official import axes_of
from safetensors import safe_open

from braincog_transformers.checkpoints import load_state
from braincog_transformers.ops.kernels import fused_neuron

VALUE, GRADIENT = 1e-9, 1e-6

# a kernel is compiled for each T, type and kind of neuron: one network of images, and one of events that learns leaks
COMPILED = ("spikformer_cifar", "spike_driven_transformer_dvs_tet_plif")


class Vector:
    """One file: its metadata, its tensors by prefix, and our network with its state."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.meta = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is no mapping
        self.tensors = {name: value for name, value in tensors.items() if "." not in name}
        if self.meta.get("output_layout", "").startswith("B,T,"):  # here the steps stand in front
            by_step = [name for name in self.tensors if name.startswith(("logits", "probe", "corrected"))]
            self.tensors |= {name: self.tensors[name].transpose(0, 1) for name in by_step}
        self.state = {name[6:]: value for name, value in tensors.items() if name.startswith("state.")}
        self.grads = {name[5:]: value for name, value in tensors.items() if name.startswith("grad.")}
        self.activations = {name[9:]: value for name, value in tensors.items() if name.startswith("act_eval.")}
        self.buffers = {name[12:]: value for name, value in tensors.items() if name.startswith("after_train.")}
        self.fresh = {name[18:]: value for name, value in tensors.items() if name.startswith("after_train_fresh.")}
        x = self.tensors["input"].double()
        self.input = x.transpose(0, 1) if axes_of(self.meta).startswith("TB") else x
        self.shapes = {"input_shape": tuple(self.input.shape), "classes": self.tensors["logits_eval"].shape[-1]}

    def network(self):
        model = builder_of(self.meta)(json.loads(self.meta["kwargs"]), {**self.meta, **self.shapes})
        load_state(model, self.state)
        return model.double()

    def train(self, model):
        """Run a training pass, compare the logits, go backward from the probes; a pair comes with distillation."""
        outputs = model(self.input)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        kinds = ("", "_kd")[: len(outputs)]
        for kind, logits in zip(kinds, outputs, strict=True):
            assert (logits - self.tensors[f"logits_train{kind}"]).abs().max() < VALUE
        sum((y * self.tensors[f"probe{kind}"]).sum() for kind, y in zip(kinds, outputs, strict=True)).backward()
        return model

    @functools.cached_property
    def trained(self):
        """The network after its training pass, with gradients: read only."""
        return self.train(self.network().train())


def pytest_generate_tests(metafunc):
    if not {"vector_path", "vector_to_compile", "masked_path", "unbuilt"} & {*metafunc.fixturenames}:
        return
    built, others = vectors_in(metafunc.config.getoption("--golden-dir"))
    pretrained = masked_in(others)
    if "masked_path" in metafunc.fixturenames:
        metafunc.parametrize("masked_path", pretrained, ids=[path.stem for path in pretrained])
    elif "vector_path" in metafunc.fixturenames:
        metafunc.parametrize("vector_path", built, ids=[path.stem for path in built], scope="module")
    elif "vector_to_compile" in metafunc.fixturenames:
        chosen = [path for path in built if path.stem in COMPILED] or built[:1]
        metafunc.parametrize("vector_to_compile", chosen, ids=[path.stem for path in chosen])
    else:
        metafunc.parametrize("unbuilt", [path.stem for path in others if path not in pretrained])


@pytest.fixture(scope="module")
def vector(vector_path):
    """Return a vector for all tests of it, which follow each other."""
    return Vector(vector_path)


def _tokens(activation, layout):
    """Bring an official activation to `(T*B, N, C)`."""
    if layout == "T,B,N,C":
        return activation.flatten(0, 1)
    return activation.flatten(0, 1).flatten(2).transpose(1, 2)


ELSEWHERE = {
    "masked_spiking_transformer": "conversion/test_conv_mst.py",
    "spikezip_tf": "conversion/test_conv_spikezip.py",
    "sta_": "conversion/test_conv_sta.py",
    "stn_rate_coded": "conversion/test_conv_rate.py",
    "stnet": "tasks/test_stnet_network.py and test_tracking_vectors.py",
    "spike_transformer_depth": "tasks/test_depth_network.py and test_depth_numbers.py",
    "spiking_pose_transformer": "tasks/test_pose_network.py",
    "pose_scores": "tasks/test_pose_task.py",
    "tracking_pipeline": "tasks/test_tracking_vectors.py",
}
"""Where vectors are tested that are no classifier's, by how their names begin."""


def test_every_other_vector_is_named(unbuilt):
    place = next((place for start, place in ELSEWHERE.items() if unbuilt.startswith(start)), None)
    pytest.skip(f"{unbuilt}: " + (f"see tests/{place}" if place else "no family here builds this network"))


def test_the_other_places_exist():
    for place in ELSEWHERE.values():
        folder, _, names = place.partition("/")
        assert all((Path(__file__).parent / folder / name).is_file() for name in names.split(" and "))


def test_there_are_vectors(pytestconfig):
    assert list(pytestconfig.getoption("--golden-dir").glob("spikformer*.safetensors"))


def test_evaluation_matches_layer_by_layer(vector):
    model = vector.network().eval()
    seen = {}
    model.patch_embed.register_forward_hook(lambda m, i, out: seen.__setitem__("patch_embed", out))
    for index, block in enumerate(getattr(model, model.units)):
        block.register_forward_hook(lambda m, i, out, index=index: seen.__setitem__(f"block.{index}", out))
    with torch.no_grad():
        logits = model(vector.input)
    for name in sorted(vector.activations, key=lambda name: (name != "patch_embed", name)):
        expected = _tokens(vector.activations[name], vector.meta["act_layout"])
        torch.testing.assert_close(seen[name].float(), expected, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert (logits - vector.tensors["logits_eval"]).abs().max() < VALUE


def test_training_matches_in_value_and_gradient(vector):
    model = vector.trained
    parameters, names = dict(model.named_parameters()), model.official_names
    for name, expected in vector.grads.items():
        grad = parameters[names.translate(name)].grad.view(expected.shape)
        error = (grad - expected).norm() / expected.double().norm().clamp_min(1e-12)
        assert error < GRADIENT, f"{name}: relative error {error:.1e}"
    for name, expected in vector.buffers.items():
        torch.testing.assert_close(
            model.get_buffer(names.translate(name)).float(), expected.float(), msg=lambda m, n=name: f"{n}: {m}"
        )


def test_training_from_fresh_statistics_matches(vector):
    """Some vectors hold a training pass that starts with the running statistics of a new network, which are 0."""
    if not vector.fresh:
        pytest.skip("this vector has no pass of a new network")
    model = vector.network().train()
    buffers = {name: model.get_buffer(model.official_names.translate(name)) for name in vector.fresh}
    for buffer in buffers.values():
        buffer.zero_()
    assert (model(vector.input) - vector.tensors["logits_train_fresh"]).abs().max() < VALUE
    for name, expected in vector.fresh.items():
        torch.testing.assert_close(buffers[name], expected, rtol=0, atol=VALUE, msg=lambda m, n=name: f"{n}: {m}")


def test_every_gradient_norm_matches(vector):
    """The metadata has the norm of each parameter's gradient, null for the dead ones."""
    model = vector.trained
    names, parameters = model.official_names, dict(model.named_parameters())
    norms = json.loads(vector.meta["grad_norms"])
    largest = max(norm for norm in norms.values() if norm)
    for name, norm in norms.items():
        ours = names.translate(name)
        if norm is None:
            fixed = ours is None or not parameters[ours].requires_grad
            assert fixed, f"{name} has no gradient officially and learns here as {ours}"
        else:
            assert parameters[ours].grad.norm().item() == pytest.approx(norm, rel=1e-5, abs=1e-9 * largest), name


def test_step_by_step_gives_the_same_logits(vector):
    model = vector.network().eval()
    if model.mixes_time:
        pytest.skip(model.mixes_time)
    model.set_attr("layer_by_layer", False)
    with torch.no_grad():
        assert (model(vector.input) - vector.tensors["logits_eval"]).abs().max() < VALUE


def _check_gradients_of_kernels(vector, monkeypatch):
    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 1)
    model = vector.train(vector.network().train())
    for name, expected in vector.grads.items():
        grad = model.get_parameter(model.official_names.translate(name)).grad.view(expected.shape)
        assert (grad - expected).norm() / expected.double().norm().clamp_min(1e-12) < GRADIENT, name


def test_kernels_run_eagerly_give_the_same_logits(vector, monkeypatch):
    _check_gradients_of_kernels(vector, monkeypatch)


@pytest.mark.slow
@pytest.mark.kernels
def test_compiled_kernels_give_the_same_logits(vector_to_compile, monkeypatch):
    _check_gradients_of_kernels(Vector(vector_to_compile), monkeypatch)


def test_dead_keys_are_named_in_the_debug_log(vector, caplog):
    with caplog.at_level(logging.DEBUG, logger="braincog_transformers.checkpoints"):
        names = vector.network().official_names
    for name in vector.state:
        named = any(name in record.getMessage() for record in caplog.records)
        assert named == (names.translate(name) is None), name


def test_single_steps_average_to_the_logits(vector):
    model = vector.network().eval()
    if model.mixes_time:
        pytest.skip(model.mixes_time)
    frames = [vector.input] * model.step if vector.input.dim() == 4 else vector.input.unbind(1)
    model.set_streaming()
    with torch.no_grad():
        by_step = torch.stack([model(frame) for frame in frames])
    expected = vector.tensors["logits_eval"]
    assert ((by_step.flatten(0, 1) if model.output_steps else by_step.mean(0)) - expected).abs().max() < VALUE


def test_fused_gives_the_same_logits(vector):
    model = vector.network().eval().fuse().fuse()
    assert not [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    with torch.no_grad():
        assert (model(vector.input) - vector.tensors["logits_eval"]).abs().max() < VALUE


def test_masked_pretraining_matches(masked_path):
    """Losses, latent tokens and gradients of a masked pre-training, whose mask follows from the vector's noise."""
    meta, tensors = masked.read(masked_path)
    model = masked.build(meta)
    load_state(model, {name[6:]: value for name, value in tensors.items() if name.startswith("state.")})
    model, x, noise = model.double().eval(), tensors["input"].double(), tensors["noise"]
    with torch.no_grad():
        assert (model.encode(x, noise)[0] - tensors["latent_eval"]).abs().max() < VALUE
        assert (model(x, noise).mean() - tensors["loss_eval"]).abs() < VALUE
    loss = model.train()(x, noise).mean()
    assert (loss - tensors["loss_train"]).abs() < VALUE
    loss.backward()
    grads = {name[5:]: value for name, value in tensors.items() if name.startswith("grad.")}
    assert grads
    for name, expected in grads.items():
        grad = model.get_parameter(model.official_names.translate(name)).grad.view(expected.shape)
        assert (grad - expected).norm() / expected.double().norm() < GRADIENT, name
    norms = json.loads(meta["grad_norms"])
    parameters, largest = dict(model.named_parameters()), max(norm for norm in norms.values() if norm)
    for name, norm in norms.items():
        ours = model.official_names.translate(name)
        if not norm:
            assert ours not in parameters, f"{name} learns nothing officially"
        else:
            assert parameters[ours].grad.norm().item() == pytest.approx(norm, rel=1e-5, abs=1e-9 * largest), name
