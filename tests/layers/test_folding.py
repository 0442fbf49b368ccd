"""`fuse` changes no result, whatever a layer or normalisation has become; what can't be folded stays."""

import copy
from functools import partial

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from braincog_transformers import LIFNode
from braincog_transformers.layers import ConvBN, ConvBNNode, LinearBN
from braincog_transformers.models.sdt_v2 import RepConv
from braincog_transformers.models.sglformer import TimeTokenPool


def _settled(module):
    """Return a module in double precision with statistics and weights of its own, in evaluation."""
    module = module.double().eval()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for value in (part.running_mean, part.weight, part.bias):
                nn.init.normal_(value, std=0.5)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module


def _layers():
    torch.manual_seed(0)
    images, tokens = torch.randn(4, 6, 5, 5).double(), torch.randn(4, 7, 6).double()
    padded = ConvBN(6, 4, bias=True)
    padded.conv.padding_mode = "circular"
    padded.conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
    node = partial(LIFNode, step=2, layer_by_layer=True)
    return {
        "convolution": (ConvBN(6, 4, groups=2), "conv", images),
        "circular": (padded, "conv", images),
        "neuron": (ConvBNNode(6, 4, bias=True, node=node, pool="after"), "conv", images),
        "linear": (LinearBN(6, 4), "linear", tokens),
        "pool": (TimeTokenPool(6, 7, 4), "conv", tokens),
        "stack": (RepConv(6), "body.0", images),
        "inside the stack": (RepConv(6), "body.2", images),
    }


def _spectral(layer):
    spectral_norm(layer)
    layer.train()(torch.randn(1, *((6,) if isinstance(layer, nn.Linear) else (layer.in_channels, 9, 9))).double())


CHANGES = {
    "nothing": lambda layer: None,
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "weight_norm by a hook": weight_norm,
    "spectral_norm by a hook": spectral_norm,
    "pruning": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", _layers())
def test_reparametrised_layers_are_folded_with_the_weight_they_compute_with(kind, change):
    module, name, x = _layers()[kind]
    _settled(module)
    layer = module.get_submodule(name)
    CHANGES[change](layer)
    with torch.no_grad():
        for part, value in layer.named_parameters():
            if part.endswith(("_g", "original0")):  # what weight norm starts from is the weight itself
                value.mul_(3)
    module.eval()
    expected = module(x)
    module.fuse()
    torch.testing.assert_close(module(x), expected)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
    module.fuse()
    torch.testing.assert_close(module(x), expected)


def _untracked(module):
    module.bn.track_running_stats, module.bn.running_mean, module.bn.running_var = False, None, None


def _training(module):
    module.bn.train()


def _with_an_activation(module):
    module.bn = _settled(BatchNormAct2d(4))


class _Doubled(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


def _of_another_class(module):
    module.bn = _settled(_Doubled(4))


def _own_forward(module):
    forward = module.conv.forward
    module.conv.forward = lambda x: 2 * forward(x)


def _hook_on_the_convolution(module):
    module.conv.register_forward_hook(lambda _, __, out: out.relu())


def _hook_on_the_normalisation(module):
    module.bn.register_forward_hook(lambda _, __, out: out.relu())


def _adapted(module):
    """Wrap the convolution as libraries of adapters do."""

    class Adapted(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    adapted = Adapted(6, 4, 3, padding=1, bias=False).double().eval()
    adapted.load_state_dict(module.conv.state_dict())
    module.conv = adapted


@pytest.mark.parametrize(
    "change",
    [_untracked, _training, _with_an_activation, _of_another_class, _own_forward, _hook_on_the_convolution,
     _hook_on_the_normalisation, _adapted],
)  # fmt: skip
def test_what_cannot_be_folded_stays_as_it_is(change):
    torch.manual_seed(0)
    module, x = _settled(ConvBN(6, 4)), torch.randn(4, 6, 5, 5).double()
    change(module)
    expected = copy.deepcopy(module)(x)
    module.fuse()
    torch.testing.assert_close(module(x), expected)
    assert not isinstance(module.bn, nn.Identity)


def test_a_network_without_running_statistics_is_fused_as_far_as_that_goes():
    torch.manual_seed(0)
    model = _settled(timm.create_model("spikformer_digits", depth=1, embed_dim=16))
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms[::2]:
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    images = torch.rand(2, model.in_chans, *model.img_size).double()
    expected = model(images)
    assert expected.abs().max() > 0
    torch.testing.assert_close(model.fuse()(images), expected)
    assert sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()) == len(norms[::2])


def test_a_synchronised_normalisation_is_folded_too():
    torch.manual_seed(0)
    module, x = _settled(nn.SyncBatchNorm.convert_sync_batchnorm(ConvBN(6, 4))), torch.randn(4, 6, 5, 5).double()
    expected = module(x)
    module.fuse()
    torch.testing.assert_close(module(x), expected)
    assert isinstance(module.bn, nn.Identity)
