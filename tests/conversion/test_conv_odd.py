"""What must hold for each method whatever state the source is in, and however the converted network is called."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Attention
from torch import nn
from torch.utils.data import TensorDataset
from user_networks import mlp, vit

from braincog_transformers import UserError
from braincog_transformers.analysis.audit import audit
from braincog_transformers.conversion import METHODS, convert, load_converted, prepare, save_converted

T = 6
every_method = pytest.mark.parametrize("method", METHODS)


def images(count=3):
    """Return the same images at each call."""
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def source(method="", **options):
    """Build a small vision transformer, with ReLU where a method knows nothing else."""
    torch.manual_seed(0)
    network = vit(**({"act_layer": nn.ReLU} if method == "rate" else {}), **options)
    return network.eval().requires_grad_(False).apply(_strong)


def _strong(module):
    if isinstance(module, nn.Linear) and module.out_features == 3:
        nn.init.normal_(module.weight, std=0.2)


def spiking(method, network=None, data=None, **options):
    """Convert a network; silent layers don't matter here."""
    settings = {"step": T, "allow_silent": True, **options}
    return convert(
        source(method) if network is None else network, method, data=images() if data is None else data, **settings
    )


@functools.cache
def outputs(method):
    """Return what the source's conversion gives, for comparison."""
    with torch.no_grad():
        return spiking(method)(images())


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@every_method
def test_what_a_call_gives_is_what_its_steps_give(method):
    network = spiking(method)
    sequence = network.forward_sequence(images())
    assert sequence.shape == (T, 3, 3)
    same(sequence[-1], outputs(method))
    total = sum(network.forward_step(network.encode(images(), t)) for t in range(T))  # a call leaves nothing behind
    same(network.readout(total, T), outputs(method))
    same(network(images()), outputs(method))  # in the middle of a stream
    framed = torch.stack([network.encode(images(), t) for t in range(T)], dim=1)
    same(network(framed), outputs(method))


@every_method
def test_copies_and_pickles_in_the_middle_of_a_stream_go_on_by_themselves(method):
    network, x = spiking(method), images()
    for t in range(2):
        network.forward_step(network.encode(x, t))
    copies = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    ahead = [network.forward_step(network.encode(x, t)) for t in range(2, T)]
    for one in copies:
        for t, expected in enumerate(ahead, start=2):
            assert torch.equal(one.forward_step(one.encode(x, t)), expected)
        assert torch.equal(one(x), network(x))


@every_method
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_type_is_kept(method, dtype):
    network = spiking(method, source(method).to(dtype), images().double())
    assert {p.dtype for p in (*network.parameters(), *network.buffers()) if p.is_floating_point()} == {dtype}
    found = network(images().to(dtype))
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert network.forward_sequence(images().to(dtype)).isfinite().all()


@every_method
def test_data_of_another_type_or_layout_calibrate_the_same(method):
    for data in (images().double(), images().mT.contiguous().mT, [(images(), torch.zeros(3))]):
        same(spiking(method, data=data)(images()), outputs(method))


@every_method
def test_inputs_of_any_layout_one_sample_and_one_step(method):
    network = spiking(method)
    apart = torch.stack([images()] * 2, dim=-1)[..., 0]
    same(network(apart), outputs(method))
    same(network(images().to(memory_format=torch.channels_last)), outputs(method))
    same(network(images()[:1]), outputs(method)[:1])
    assert network(images()[:0]).shape == (0, 3)
    with torch.inference_mode():
        same(network(images()), outputs(method))
    same(network(images()), outputs(method))
    one = spiking(method, step=1, data=images(1))
    assert torch.equal(one(images(1)), one.forward_sequence(images(1))[0])


@every_method
def test_inputs_that_require_a_gradient_give_the_same(method):
    same(spiking(method)(images().requires_grad_()).detach(), outputs(method))


@every_method
def test_the_source_stays_as_it_was(method):
    network = source(method).train().requires_grad_(True)
    network.blocks[0].drop_path1.train(False)
    seen = []
    hook = network.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    kinds = [type(module) for module in network.modules()]
    prepared, converted = prepare(network, method, data=images()), spiking(method, network)
    assert prepared.training
    assert not converted.train().training
    assert [module.training for module in network.modules()] == modes
    assert [type(module) for module in network.modules()] == kinds
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert list(network.blocks[0]._forward_hooks) == [hook.id]
    same(converted(images()), outputs(method))


@every_method
def test_a_frozen_source_gives_a_network_without_gradients(method):
    assert not any(parameter.requires_grad for parameter in spiking(method).parameters())
    assert not outputs(method).requires_grad


class _Wrapped(nn.Module):
    """What `torch.compile` returns, as far as it matters here: the module under `_orig_mod`, and its calls."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module

    def forward(self, *args, **kwargs):
        return self._orig_mod(*args, **kwargs)


@every_method
@pytest.mark.parametrize("wrap", [pytest.param(torch.compile, marks=pytest.mark.slow), _Wrapped, nn.DataParallel])
def test_a_compiled_or_distributed_source_is_unwrapped(method, wrap):
    same(spiking(method, wrap(source(method)))(images()), outputs(method))
    limit = wrap(prepare(source(method), method, data=images()))
    network = spiking(method, limit)
    same(network(images()), outputs(method))
    assert not any(isinstance(module, type(limit)) for module in network.modules())


@every_method
def test_a_compiled_part_is_unwrapped(method):
    network = source(method)
    network.blocks[0] = _Wrapped(network.blocks[0])
    same(spiking(method, network)(images()), outputs(method))


@every_method
def test_a_block_in_two_places_gets_neurons_for_each_and_keeps_its_weights_shared(method):
    network = source(method)
    network.blocks[1] = copy.deepcopy(network.blocks[0])
    apart = spiking(method, network)
    network.blocks[1] = network.blocks[0]
    limit = prepare(network, method, data=images())
    together = spiking(method, limit)
    assert together.nodes.keys() == apart.nodes.keys()
    same(together(images()), apart(images()))
    if METHODS[method].trains:
        first, second = limit.blocks
        assert first.attn.qkv.weight is second.attn.qkv.weight
        assert first is not second


@every_method
def test_other_weights_of_the_same_shape_load_into_the_structure(method):
    network = spiking(method)
    other = spiking(method, data=images() / 2)
    other.load_state_dict(network.state_dict())
    same(other(images()), outputs(method))


@every_method
def test_autocast_only_lowers_the_precision(method):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = spiking(method)(images())
    assert found.isfinite().all()
    assert float((found.float() - outputs(method)).norm() / outputs(method).norm()) < 0.5


@every_method
def test_data_that_the_network_can_not_read_are_refused_in_one_line(method):
    for data in (torch.rand(2, 3, 15, 15), torch.rand(2, 4, 16, 16), torch.rand(2, 7)):
        with pytest.raises(UserError, match=r"VisionTransformer can't run on an input of shape \(1, ") as raised:
            prepare(source(method), method, data=data)
        assert "\n" not in str(raised.value)


class _OwnAttention(Attention):
    def forward(self, x, **kwargs):
        return super().forward(x, **kwargs) + x


def _tied(network):
    network.blocks[1] = network.blocks[0]
    return network


@every_method
def test_an_attention_with_a_forward_of_its_own_is_not_taken_for_timms(method):
    network = source(method)
    network.blocks[1].attn.__class__ = _OwnAttention
    if method == "rate":  # it leaves attention as it is
        limit = prepare(network, method, data=images())
        torch.testing.assert_close(limit(images()), network(images()), rtol=0.05, atol=0.01)
    else:
        with pytest.raises(UserError, match=r"blocks.1.attn .*OwnAttention"):
            prepare(network, method, data=images())


class _Adapted(nn.Module):
    """A layer with an adapter of low rank."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.down = layer, nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


@every_method
def test_a_layer_with_an_adapter_is_kept_or_refused(method):
    network = source(method)
    network.blocks[0].attn.qkv = _Adapted(network.blocks[0].attn.qkv)
    if method in ("qcfs", "rate"):
        assert isinstance(prepare(network, method, data=images()).blocks[0].attn.qkv, _Adapted)
    else:
        with pytest.raises(UserError, match=r"blocks.0.attn.qkv .*Adapted"):
            prepare(network, method, data=images())


@every_method
def test_a_transformer_without_blocks(method):
    if method in ("rate", "sta"):
        with pytest.raises(UserError, match="nothing to convert"):
            spiking(method, source(method, depth=0))
    else:
        assert len(spiking(method, source(method, depth=0)).nodes) > 0


@every_method
def test_a_hook_that_would_be_lost_is_refused_and_one_that_stays_is_kept(method):
    network = source(method)
    network.blocks[0].register_forward_hook(lambda _module, _inputs, out: 2 * out)
    assert not torch.allclose(spiking(method, network)(images()), outputs(method), rtol=1e-3)
    lost = network.blocks[1].mlp.act if method == "rate" else network.blocks[1].attn
    lost.register_forward_hook(lambda _module, _inputs, out: 2 * out)
    path = "blocks.1.mlp.act" if method == "rate" else "blocks.1.attn"
    with pytest.raises(UserError, match=f"{method} puts other modules in the places of {path}, and the hooks|rate: "):
        prepare(network, method, data=images())


class _Residual(nn.Module):
    """A residual sum with what an activation read."""

    def __init__(self, inplace):
        super().__init__()
        self.first, self.act, self.head = nn.Linear(6, 6), nn.ReLU(inplace), nn.Linear(6, 3)

    def forward(self, x):
        x = self.first(x)
        return self.head(self.act(x) + x)


@pytest.mark.parametrize("method", ["qcfs", "rate"])
def test_what_is_changed_in_place_must_not_be_read_again(method):
    with pytest.raises(UserError, match=r"what act changes in place is read again, .* build it with inplace=False"):
        prepare(_Residual(True), method, data=torch.rand(4, 6))
    network = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True), nn.Linear(6, 3))
    assert not any(getattr(m, "inplace", False) for m in prepare(network, method, data=torch.rand(4, 6)).modules())
    assert network[1].inplace
    prepare(_Residual(False), method, data=torch.rand(4, 6))


@every_method
def test_weights_that_are_not_finite_are_refused(method):
    network = source(method)
    network.blocks[0].mlp.fc2.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="VisionTransformer puts out values that are not finite; check its weights"):
        prepare(network, method, data=images())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@every_method
def test_what_can_not_be_copied_or_changed_is_refused(method):
    with pytest.raises(UserError, match=r"compiled by torch.jit, where no module can be replaced; give the network"):
        prepare(torch.jit.script(nn.Sequential(nn.Linear(6, 3))), method, data=images())
    network = source(method)
    network.state = (one for one in "iterator")
    with pytest.raises(UserError, match="VisionTransformer can't be copied: cannot pickle 'generator' object"):
        prepare(network, method, data=images())


@pytest.mark.parametrize(
    "data",
    [np.ones((2, 6)), [{"image": torch.rand(2, 6)}], "folder", 5, torch.tensor(1.0), TensorDataset(torch.rand(2, 6))],
)
def test_data_that_are_no_tensors_are_refused(data):
    with pytest.raises(UserError, match="the calibration data must be a tensor of inputs, or batches of tensors"):
        convert(mlp(), "rate", data=data)


@pytest.mark.parametrize("data", [[], torch.rand(0, 6), iter([torch.rand(0, 6)])])
def test_data_without_a_sample_are_refused(data):
    with pytest.raises(UserError, match="the calibration data hold no sample"):
        convert(mlp(), "rate", data=data)


def test_a_batch_that_the_network_can_not_read_is_refused_wherever_it_comes():
    for data in ([torch.rand(2, 6), torch.zeros(2)], [torch.rand(2, 6), torch.rand(2, 7)]):  # inputs and targets
        with pytest.raises(UserError, match="Sequential can't run on an input of shape"):
            convert(mlp(), "rate", data=data)


@pytest.mark.parametrize("network", [None, "resnet18", nn.ReLU, lambda x: x])
def test_what_is_no_network_is_refused(network):
    for call in (convert, prepare):
        with pytest.raises(UserError, match=r"the network must be a torch.nn.Module; got "):
            call(network, "rate", data=torch.rand(2, 6))


@every_method
def test_a_network_that_was_analysed_can_be_saved(method, tmp_path):
    network = spiking(method)
    audit(network, [images()])
    path = save_converted(network, tmp_path / "analysed.safetensors", source=source(method))
    same(load_converted(path, source=source(method))(images()), outputs(method))


@every_method
@pytest.mark.parametrize("change", [_Wrapped, _tied])
def test_a_file_of_an_odd_source_is_read_back(method, change, tmp_path):
    network = change(source(method))
    converted = spiking(method, network)
    path = save_converted(converted, tmp_path / "odd.safetensors", source=network)
    same(load_converted(path, source=network)(images()), converted(images()))


@every_method
def test_pictures_of_several_sizes(method):
    network, large = source(method, dynamic_img_size=True), torch.rand(2, 3, 24, 32)
    if method == "sta":
        with pytest.raises(UserError, match="thresholds are those of 5 tokens, the input has 13; convert with data of"):
            spiking(method, network)(large)
        with pytest.raises(UserError, match=r"the data hold inputs of several sizes, .* or per_neuron=False"):
            spiking(method, network, [images(), large])
    converted = spiking(method, network, [images(), large], **({"per_neuron": False} if method == "sta" else {}))
    assert converted(large).shape == converted(images(2)).shape == (2, 3)


@pytest.mark.parametrize("method", ["qcfs", "rate"])
def test_relu6_stays_clipped_at_6(method):
    network = nn.Sequential(nn.Linear(6, 6), nn.ReLU6(), nn.Linear(6, 3)).eval().requires_grad_(False)
    network[0].weight.mul_(30)
    x = torch.rand(64, 6)
    assert network[0](x).max() > 8
    limit = prepare(network, method, data=x, levels=256)
    torch.testing.assert_close(limit(x), network(x), rtol=0.01, atol=0.02)
    assert float(next(iter(spiking(method, network, x).nodes.values())).get_thres()) <= 6


def test_shared_weights_are_quantised_by_each_layer_for_itself():
    network = _tied(source())
    limit = prepare(network, "spikezip", data=images(), weight_bits=4)
    with torch.no_grad():
        limit.blocks[1].mlp.fc1.weight_quantiser.s.mul_(1.3)
    same(spiking("spikezip", limit, step=200)(images()), limit.eval()(images()))
