"""Every vector of the official networks: outputs to 1e-9, gradients to 1e-6, in float64."""

import json
import logging

import pytest
import torch
from safetensors import safe_open

from braincog_transformers.checkpoints import load_state, translate
from braincog_transformers.models import Spikformer

VALUE, GRADIENT = 1e-9, 1e-6


def _spikformer(kwargs, meta):
    """Translate the official constructor's arguments; what the class hard-codes is told from its file."""
    folder = meta["source"].rsplit(":", 1)[1].split("/")[0]
    return Spikformer(
        img_size=(kwargs["img_size_h"], kwargs["img_size_w"]),
        patch_size=4 if folder == "cifar10" else 16,
        in_chans=kwargs["in_channels"],
        num_classes=kwargs["num_classes"],
        embed_dim=kwargs["embed_dims"],
        depth=kwargs["depths"],
        num_heads=kwargs["num_heads"],
        mlp_ratio=kwargs["mlp_ratios"],
        qkv_bias=folder == "cifar10",
        attn_scale=0.25 if folder == "cifar10dvs" else 0.125,
        pool="before" if "CML" in meta["source"] else "after",
        step=int(meta["timesteps"]),
    )


# By the start of the file's name, so that further vectors are found by themselves.
BUILDERS = {"spikformer": _spikformer}


class Vector:
    """One file: its metadata, its tensors by prefix, and our network with its state."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.meta = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is no mapping
        self.tensors = {name: value for name, value in tensors.items() if "." not in name}
        self.state = {name[6:]: value for name, value in tensors.items() if name.startswith("state.")}
        self.grads = {name[5:]: value for name, value in tensors.items() if name.startswith("grad.")}
        self.activations = {name[9:]: value for name, value in tensors.items() if name.startswith("act_eval.")}
        self.buffers = {name[12:]: value for name, value in tensors.items() if name.startswith("after_train.")}
        self.input = self.tensors["input"].double()

    def network(self):
        family = next(name for name in BUILDERS if self.meta["name"].startswith(name))
        model = BUILDERS[family](json.loads(self.meta["kwargs"]), self.meta)
        load_state(model, self.state)
        return model.double()


def pytest_generate_tests(metafunc):
    if "vector_path" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--golden-dir")
        found = [p for p in sorted(folder.glob("*.safetensors")) if p.stem.startswith(tuple(BUILDERS))]
        metafunc.parametrize("vector_path", found, ids=[p.stem for p in found])


@pytest.fixture
def vector(vector_path):
    loaded = Vector(vector_path)
    loaded.meta["name"] = vector_path.stem
    return loaded


def _tokens(activation, layout):
    """Bring an official activation to `(T*B, N, C)`."""
    if layout == "T,B,N,C":
        return activation.flatten(0, 1)
    return activation.flatten(0, 1).flatten(2).transpose(1, 2)


def test_there_are_vectors(pytestconfig):
    assert list(pytestconfig.getoption("--golden-dir").glob("spikformer*.safetensors"))


def test_evaluation_matches_layer_by_layer(vector):
    model = vector.network().eval()
    seen = {}
    model.patch_embed.register_forward_hook(lambda m, i, out: seen.__setitem__("patch_embed", out))
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda m, i, out, index=index: seen.__setitem__(f"block.{index}", out))
    with torch.no_grad():
        logits = model(vector.input)
    for name in sorted(vector.activations, key=lambda name: (name != "patch_embed", name)):
        expected = _tokens(vector.activations[name], vector.meta["act_layout"])
        torch.testing.assert_close(seen[name].float(), expected, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert (logits - vector.tensors["logits_eval"]).abs().max() < VALUE


def test_training_matches_in_value_and_gradient(vector):
    model = vector.network().train()
    logits = model(vector.input)
    assert (logits - vector.tensors["logits_train"]).abs().max() < VALUE
    (logits * vector.tensors["probe"]).sum().backward()
    parameters = dict(model.named_parameters())
    family = type(model).__name__
    for name, expected in vector.grads.items():
        grad = parameters[translate(name, family)].grad.view(expected.shape)
        error = (grad - expected).norm() / expected.double().norm().clamp_min(1e-12)
        assert error < GRADIENT, f"{name}: relative error {error:.1e}"
    for name, expected in vector.buffers.items():
        torch.testing.assert_close(model.get_buffer(translate(name, family)).float(), expected.float())


def test_every_gradient_norm_matches(vector):
    """The metadata has the norm of each parameter's gradient, null for the dead ones."""
    model = vector.network().train()
    (model(vector.input) * vector.tensors["probe"]).sum().backward()
    family, parameters = type(model).__name__, dict(model.named_parameters())
    norms = json.loads(vector.meta["grad_norms"])
    largest = max(norm for norm in norms.values() if norm)
    for name, norm in norms.items():
        ours = translate(name, family)
        if norm is None:
            assert ours is None, f"{name} has no gradient officially and lives here as {ours}"
        else:
            assert parameters[ours].grad.norm().item() == pytest.approx(norm, rel=1e-5, abs=1e-9 * largest), name


def test_step_by_step_gives_the_same_logits(vector):
    model = vector.network().eval()
    model.set_attr("layer_by_layer", False)
    with torch.no_grad():
        assert (model(vector.input) - vector.tensors["logits_eval"]).abs().max() < VALUE


def test_compiled_kernels_give_the_same_logits(vector, monkeypatch):
    from braincog_transformers.ops import fused_neuron

    if not fused_neuron.compiler_works("cpu"):
        pytest.skip("torch.compile finds no working C++ compiler here")
    monkeypatch.setattr(fused_neuron, "MIN_ELEMENTS", 1)
    model = vector.network().train()
    logits = model(vector.input)
    assert (logits - vector.tensors["logits_train"]).abs().max() < VALUE
    (logits * vector.tensors["probe"]).sum().backward()
    for name, expected in vector.grads.items():
        grad = model.get_parameter(translate(name, type(model).__name__)).grad.view(expected.shape)
        assert (grad - expected).norm() / expected.double().norm().clamp_min(1e-12) < GRADIENT, name


def test_dead_keys_are_named_in_the_debug_log(vector, caplog):
    dead = [name for name in vector.state if translate(name, "Spikformer") is None]
    assert dead
    with caplog.at_level(logging.DEBUG, logger="braincog_transformers.checkpoints"):
        vector.network()
    assert all(any(name in record.getMessage() for record in caplog.records) for name in dead)
