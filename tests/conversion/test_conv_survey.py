"""What is not linear in a source network is found, and each method says what it does with it."""

import pytest
import timm
import torch
from torch import nn
from user_networks import NETWORKS, TwoInputs, build, mlp

from braincog_transformers import UserError
from braincog_transformers.conversion.survey import example_input, survey

BLOCK = {"layer norm", "gelu", "fused attention"}
EXPECTED = {
    "vit": BLOCK,
    "vit, relu": BLOCK - {"gelu"} | {"relu"},
    "vit, registers and scales": BLOCK,
    "vit, normalised queries": BLOCK,
    "vit, swiglu": BLOCK | {"product of two activations"},
    "vit, mean of tokens": BLOCK,
    "vit, no classifier": BLOCK,
    "deit": BLOCK,
    "swin": {"layer norm", "gelu", "softmax", "matrix product of two activations"},
    "resnet": {"relu", "max pooling"},
    "convnext": {"layer norm", "gelu"},
    "efficientnet": {"silu", "sigmoid", "product of two activations"},
    "mixer": {"layer norm", "gelu"},
    "cait": {"layer norm", "gelu", "softmax", "matrix product of two activations", "fused attention"},
    "beit": BLOCK,
    "eva02": BLOCK - {"gelu"} | {"silu", "product of two activations"},
    "multihead attention": {"fused attention", "relu"},
    "encoder, relu as a function": {"layer norm", "relu", "fused attention"},
    "gelu": {"gelu"},
    "clamp": {"clamp"},
    "where": {"comparison", "relu", "data-dependent selection"},
    "squeeze and excite": {"relu", "sigmoid", "product of two activations"},
    "gru": {"sigmoid", "tanh", "product of two activations"},
    "max pooling": {"relu", "max pooling"},
    "weight norm": {"relu"},
    **{f"relu{how}": {"relu"} for how in ("", " in place", " as a function", "_", " in two places")},
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_operators_of_a_network_are_found(name):
    network, x = build(name)
    modes = {path: module.training for path, module in network.train().named_modules()}
    state = {key: value.clone() for key, value in network.state_dict().items()}
    found = survey(network, x)
    if name in EXPECTED:  # how PyTorch computes an RmsNorm depends on its version
        assert {operator.name for operator in found} == EXPECTED[name]
    assert all(isinstance(network.get_submodule(operator.path), nn.Module) for operator in found)
    assert {path: module.training for path, module in network.named_modules()} == modes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("name", ["vit", "swin", "beit"])
def test_attention_that_is_not_fused_is_found_as_softmax_and_products(name):
    network, x = build(name)
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    names = {operator.name for operator in survey(network, x)}
    assert names == {"layer norm", "gelu", "softmax", "matrix product of two activations"}


def test_the_path_is_the_module_whose_own_code_asks():
    network, x = build("eva02")
    found = {(operator.path, operator.name) for operator in survey(network, x)}
    assert {("blocks.0.mlp", "product of two activations"), ("blocks.0.mlp.act", "silu")} < found
    network, x = build("relu as a function")
    assert [(operator.path, operator.name) for operator in survey(network, x)] == [("", "relu")]


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, in_chans=1), (1, 1, 32, 32)),
        (timm.create_model("swin_tiny_patch4_window7_224", img_size=(56, 112), depths=(1, 1)), (1, 3, 56, 112)),
        (timm.create_model("convnext_atto", in_chans=4), (1, 4, 224, 224)),
        (build("mixer")[0].double(), (1, 3, 16, 16)),
        (mlp(), (1, 6)),
    ],
)
def test_a_sample_has_the_size_that_the_network_is_built_for(network, shape):
    x = example_input(network)
    assert x.shape == shape
    assert x.dtype == next(network.parameters()).dtype
    survey(network, x)


def test_a_sample_draws_nothing_from_the_generator_of_the_user():
    network, before = mlp(), torch.random.get_rng_state()
    example_input(network)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("network", [nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Embedding(4, 2), nn.Conv1d(2, 3, 1)])
def test_a_network_that_does_not_say_what_it_reads_needs_data(network):
    with pytest.raises(UserError, match="needs a sample; give data="):
        example_input(network)


def test_a_network_that_can_not_run_on_one_tensor_is_refused():
    with pytest.raises(UserError, match=r"TwoInputs can't run on an input of shape \(1, 6\) alone: .*'y'"):
        survey(TwoInputs(), torch.rand(1, 6))
    with pytest.raises(UserError, match=r"Sequential can't run on an input of shape \(1, 7\) alone: .*shapes"):
        survey(mlp(), torch.rand(1, 7))


@pytest.mark.parametrize("wrap", [lambda x: {"logits": x}, lambda x: (x, x), lambda x: None])
def test_a_network_that_puts_out_something_else_than_a_tensor_is_refused(wrap):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            return wrap(self.inner(x))

    with pytest.raises(UserError, match=r"Wrapped puts out a .*, not a tensor; wrap it in a module that returns"):
        survey(Wrapped(), torch.rand(1, 6))
