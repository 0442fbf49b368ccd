"""BrainCog's own networks with the nodes here, built with them or turned into them by `accelerate`."""

import logging

import pytest
import timm
import torch
from braincog.base.node import node as braincog_node
from braincog.base.strategy.surrogate import QGateGrad, RoundGrad, SigmoidGrad
from braincog.model_zoo import convnet, resnet, resnet19_snn, sew_resnet, vgg_snn
from torch import nn
from torch.nn.utils import parametrize

from braincog_transformers import IFNode, LIFNode, PLIFNode, UserError, accelerate
from braincog_transformers.nodes import FusableNode, brain_cog, make_node, register_node
from braincog_transformers.ops.kernels import fused_neuron

# What BrainCog's scripts hand to every network, apart from the node.
SCRIPT = {
    "pretrained": False, "num_classes": 4, "dataset": "cifar10", "step": 2, "encode_type": "direct", "threshold": 0.4,
    "tau": 1.5, "sigmoid_thres": False, "requires_thres_grad": True, "spike_output": False, "act_fun": "QGateGrad",
    "temporal_flatten": False, "adaptive_node": False, "n_groups": 1, "n_encode_type": "linear", "n_preact": False,
    "tet_loss": False, "sew_cnf": "ADD", "conv_type": "normal",
}  # fmt: skip
SEW = {"cnf": "ADD"}
# One network of each file and kind of block, the smallest; the rest are deeper or wider.
NETWORKS = {
    "mnist_convnet": (convnet.mnist_convnet, (1, 28, 28), {}),
    "cifar_convnet": (convnet.cifar_convnet, (3, 16, 16), {}),
    "dvs_convnet": (convnet.dvs_convnet, (2, 2, 32, 32), {"dataset": "dvsg"}),
    "resnet9": (resnet.resnet9, (3, 8, 8), {}),
    "resnet50_half": (resnet.resnet50_half, (3, 8, 8), {}),
    "resnet19": (resnet19_snn.resnet19, (3, 8, 8), {}),
    "sew_resnet18": (sew_resnet.sew_resnet18, (3, 32, 32), SEW),
    "sew_resnet50": (sew_resnet.sew_resnet50, (3, 32, 32), SEW),
    "sew_resnet19": (sew_resnet.sew_resnet19, (3, 8, 8), SEW),
    "sew_resnet20": (sew_resnet.sew_resnet20, (3, 16, 16), SEW),
    "SNN7_tiny": (vgg_snn.SNN7_tiny, (3, 32, 32), {}),
    "SNN5": (vgg_snn.SNN5, (3, 48, 48), {}),
    "VGG_SNN": (vgg_snn.VGG_SNN, (2, 2, 48, 48), {"dataset": "dvsc10"}),
}
REGISTERED = {
    name: getattr(file, name)
    for file in (convnet, resnet, resnet19_snn, sew_resnet, vgg_snn)
    for name in file.__all__
    if name not in ("ResNet", "SEWResNet")  # the classes, which their variants build
}
# These two fail in BrainCog, whatever the node: groups where its block has none, an argument too many.
BROKEN = {"sew_resnext34_32x4d", "sew_resnext101_32x8d"}


@pytest.fixture(autouse=True)
def _plain(request, monkeypatch):
    """Compile no kernel but where a test asks for them: most layers here are just large enough for one."""
    if "kernels" not in request.fixturenames:
        monkeypatch.setattr(fused_neuron, "compiler_works", lambda _: False)


@pytest.fixture
def kernels():
    """Let large layers run in kernels; those of `pytest.mark.kernels` are compiled, others run eagerly."""


def build(create, node_type, **kwargs):
    torch.manual_seed(0)
    return create(**{**SCRIPT, "node_type": node_type, **kwargs})


def clip(shape, step=2):
    torch.manual_seed(1)
    x = torch.rand(2, *shape)
    return x if len(shape) == 3 else x[:, :1].repeat(1, step, 1, 1, 1)


@pytest.mark.parametrize("layer_by_layer", [False, True], ids=["steps", "layers"])
@pytest.mark.parametrize("name", NETWORKS)
def test_brain_cogs_networks_compute_the_same_with_either_node(name, layer_by_layer):
    create, shape, kwargs = NETWORKS[name]
    if name == "resnet19" and not layer_by_layer:
        pytest.skip("BrainCog's own normalisation there takes all steps at once")
    kwargs = {**kwargs, "layer_by_layer": layer_by_layer}
    if create.__module__ == resnet.__name__ and layer_by_layer:
        kwargs["step"] = 8  # BrainCog's ResNet does not hand its step to its nodes, which stay at their default
    ours, theirs = (build(create, node, **kwargs)(clip(shape)) for node in (LIFNode, braincog_node.LIFNode))
    assert torch.equal(ours, theirs)
    assert ours.std() > 0 or name == "mnist_convnet"


@pytest.mark.parametrize("name", sorted(REGISTERED.keys() - BROKEN))
def test_every_network_of_the_model_zoo_takes_our_nodes(name):
    kwargs = {"dataset": "dvsc10"} if name in ("VGG_SNN", "dvs_convnet") else {}
    kwargs |= SEW if name.startswith("sew") else {}
    with torch.device("meta"):
        model = build(REGISTERED[name], LIFNode, layer_by_layer=True, **kwargs)
    nodes = [module for module in model.modules() if isinstance(module, LIFNode)]
    assert nodes
    assert {node.strict for node in nodes} == {True}
    assert {node.tau for node in nodes} == {1.5}


@pytest.mark.parametrize("kind", ["LIFNode", "PLIFNode", "IFNode"])
@pytest.mark.parametrize("layer_by_layer", [False, True], ids=["steps", "layers"])
def test_what_is_left_out_has_brain_cogs_default_and_trains_alike(kind, layer_by_layer):
    ours, theirs = {"LIFNode": LIFNode, "PLIFNode": PLIFNode, "IFNode": IFNode}[kind], getattr(braincog_node, kind)
    found = []
    for node in (ours, theirs):
        torch.manual_seed(0)
        model = vgg_snn.SNN7_tiny(node_type=node, dataset="cifar10", step=2, layer_by_layer=layer_by_layer)
        out = model(clip((3, 32, 32)))
        out.square().sum().backward()
        found.append((model, out))
    assert torch.equal(found[0][1], found[1][1])
    for (name, ours), (other, theirs) in zip(*(model.named_parameters() for model, _ in found), strict=True):
        assert (name, ours.requires_grad) == (other, theirs.requires_grad)
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_timm_builds_brain_cogs_network_with_our_nodes():
    model = timm.create_model("SNN5", node_type=LIFNode, dataset="cifar10", step=2, num_classes=4)
    assert isinstance(model.feature[0].node, LIFNode)


@pytest.mark.parametrize("act_fun", ["AtanGrad", "GateGrad", "QGateGrad", "SigmoidGrad", "ReLUGrad"])
def test_at_the_threshold_a_node_fires_as_brain_cogs_does_and_in_our_networks_it_fires(act_fun):
    for kind in ("LIFNode", "PLIFNode", "IFNode"):
        x = torch.tensor([[0.5 if kind == "IFNode" else 1.0]])
        fired = make_node(kind, act_fun=act_fun, threshold=0.5)(x)
        assert torch.equal(fired, getattr(braincog_node, kind)(act_fun=act_fun, threshold=0.5)(x))
        for node in timm.create_model("spikformer_digits", node_type=kind, act_fun=act_fun).nodes.values():
            assert not node.strict
            assert not node.act_fun.alpha.requires_grad


def test_the_interface_of_brain_cogs_networks_reads_our_nodes():
    def read(node):
        model = build(vgg_snn.SNN7_tiny, node, layer_by_layer=True)
        model.set_requires_fp(True)
        model.set_requires_mem(True)
        model(clip((3, 32, 32)))
        found = [model.get_fire_rate(), model.get_tot_spike(), *model.get_mem()]
        found += [threshold.clone() for threshold in model.get_threshold()]
        found += [*model.get_fp(), *model.get_attr("mem"), torch.tensor(model.get_spike_info()[0])]
        model.set_attr("step", 1)
        model.set_attr("layer_by_layer", False)
        for module in model.modules():
            if isinstance(module, braincog_node.BaseNode):
                module.set_n_warm_up(True)
                module.set_n_tau(3.0)
                module.set_n_threshold(0.2)
        model.reset()
        assert not model.get_attr("feature_map")[0]
        model.layer_by_layer = model.encoder.layer_by_layer = False
        return [*found, model(clip((3, 32, 32)))]

    for ours, theirs in zip(read(LIFNode), read(braincog_node.LIFNode), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_groups": 4}, "LIFNode: n_groups must be 1; got 4"),
        ({"dt": 0.5}, "LIFNode: dt must be 1.0; got 0.5"),
        ({"v_reset": -0.1}, "LIFNode: v_reset must be 0.0; got -0.1 .*attribute v_reset"),
    ],
)
def test_what_a_node_cannot_do_is_refused_with_the_reason(kwargs, message):
    assert LIFNode(n_groups=1, dt=1.0, v_reset=0.0, dataset="cifar10")
    with pytest.raises(UserError, match=message):
        LIFNode(**kwargs)


@pytest.mark.parametrize("name", ["treshold", "v_threshold", "tua", "surrogate", "data_set"])
def test_a_keyword_that_nobody_knows_is_named(name):
    with pytest.raises(TypeError, match=f"LIFNode got an unexpected keyword argument {name}"):
        LIFNode(**{name: 1})
    with pytest.raises(TypeError, match="did you mean threshold"):
        LIFNode(treshold=1)


def test_a_class_of_the_users_is_not_taken_for_brain_cogs_by_its_name():
    changed = type("LIFNode", (braincog_node.LIFNode,), {"integral": lambda self, x: None})
    with pytest.raises(UserError, match="is not BrainCog's LIFNode"):
        make_node(changed)
    gentle = type("SigmoidGrad", (SigmoidGrad,), {"act_fun": staticmethod(lambda x, alpha: (x >= 0) + x - x.detach())})
    node, x = LIFNode(act_fun=gentle, layer_by_layer=True, step=1), torch.rand(2, 3, requires_grad=True)
    node(x).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 0.5))


# accelerate


@pytest.mark.parametrize(
    ("network", "kind", "act_fun"),
    [
        pytest.param("resnet", "LIFNode", "QGateGrad", marks=pytest.mark.kernels),
        pytest.param("resnet", "PLIFNode", "AtanGrad", marks=pytest.mark.kernels),
        pytest.param("resnet", "IFNode", "SigmoidGrad", marks=[pytest.mark.kernels, pytest.mark.slow]),
        ("resnet step by step", "LIFNode", "GateGrad"),
        ("resnet step by step", "PLIFNode", "SigmoidGrad"),
        ("vgg", "LIFNode", "AtanGrad"),
        ("vgg", "PLIFNode", "QGateGrad"),
        ("vgg", "IFNode", "QGateGrad"),
    ],
)
def test_accelerated_networks_are_identical(network, kind, act_fun, kernels):
    build, side = (vgg_snn.SNN7_tiny, 32) if network == "vgg" else (resnet.resnet18, 16)

    def make():
        torch.manual_seed(3)
        return build(
            num_classes=4,
            step=8,  # BrainCog's ResNet does not hand its step to its nodes, which stay at 8
            node_type=getattr(braincog_node, kind),
            act_fun=act_fun,
            dataset="cifar10",
            layer_by_layer=network != "resnet step by step",
        )

    x = torch.rand(1, 3, side, side)
    plain, swapped = make(), accelerate(make())
    nodes = [m for m in swapped.modules() if isinstance(m, braincog_node.BaseNode)]
    assert nodes
    assert all(type(m).__module__.endswith("nodes.neurons") for m in nodes)
    assert swapped.state_dict().keys() == plain.state_dict().keys()
    out, expected = swapped(x), plain(x)
    assert torch.equal(out, expected)
    out.sum().backward()
    expected.sum().backward()
    for (name, ours), theirs in zip(swapped.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_accelerate_shares_parameters_and_leaves_what_it_cannot_reproduce(caplog):
    burst = braincog_node.BurstLIFNode()
    resting = braincog_node.LIFNode(v_reset=-0.5)
    rounded = braincog_node.LIFNode(act_fun=RoundGrad)
    known = braincog_node.PLIFNode()
    network = nn.Sequential(burst, resting, rounded, known)
    with caplog.at_level(logging.INFO):
        assert accelerate(network) is network
    assert [type(m) for m in network] == [
        braincog_node.BurstLIFNode,
        braincog_node.LIFNode,
        braincog_node.LIFNode,
        PLIFNode,
    ]
    assert network[3].w is known.w
    assert network[3].threshold is known.threshold
    assert "left 3 nodes" in caplog.text


def test_a_single_node_is_accelerated():
    node = braincog_node.LIFNode(step=2, layer_by_layer=True)
    x = torch.rand(4, 5)
    expected = node(x)
    assert accelerate(node) is node
    assert type(node) is LIFNode
    assert torch.equal(node(x), expected)


def test_hooks_attributes_and_flags_stay_with_an_accelerated_node():
    node = braincog_node.PLIFNode(step=2, layer_by_layer=True).double().eval()
    node.w.requires_grad_(False)
    node.note = "mine"
    node.register_buffer("mask", torch.ones(3))
    calls = []
    node.register_forward_hook(lambda *_: calls.append("forward"))
    node.register_forward_pre_hook(lambda *_: calls.append("pre"))
    node.register_full_backward_hook(lambda *_: calls.append("backward"))
    removed = node.register_forward_hook(lambda *_: calls.append("removed"))
    network = nn.ModuleDict({"node": node})
    accelerate(network)
    removed.remove()
    assert (type(node), node.note, node.training, node.w.requires_grad) == (PLIFNode, "mine", False, False)
    assert "mask" in node.state_dict()
    node(torch.rand(4, 3, dtype=torch.float64, requires_grad=True)).sum().backward()
    assert calls == ["pre", "forward", "backward"]


def test_a_sequence_goes_on_where_accelerate_meets_it():
    x = torch.rand(4, 2, 5).unbind(0)
    whole, node = braincog_node.LIFNode(), braincog_node.LIFNode()
    expected = [whole(x_t) for x_t in x]
    node(x[0])
    network = accelerate(nn.Sequential(node))
    for x_t, spikes in zip(x[1:], expected[1:], strict=True):
        assert torch.equal(network(x_t), spikes)


@pytest.mark.parametrize("layer_by_layer", [False, True], ids=["steps", "layers"])
def test_a_node_in_two_places_stays_one_node_and_computes_the_same(layer_by_layer, caplog):
    def make():
        torch.manual_seed(0)
        shared = braincog_node.LIFNode(step=2, layer_by_layer=layer_by_layer)
        parts = nn.Linear(6, 6), shared, nn.Linear(6, 6)
        return nn.Sequential(nn.Sequential(*parts[:2]), nn.Sequential(parts[2], shared))

    plain, network = make(), accelerate(make())
    assert network[0][1] is network[1][1]
    x = torch.rand(4, 6) * 3
    assert torch.equal(network(x), plain(x))
    assert isinstance(network[0][1], FusableNode) != layer_by_layer
    assert ("0.1 = 1.1" in caplog.text) == layer_by_layer


class _Double(nn.Module):
    def forward(self, x):
        return 2 * x


def _derived():
    return type("Mine", (braincog_node.LIFNode,), {})(step=2)


def _patched():
    node = braincog_node.LIFNode(step=2)
    node.integral = lambda inputs: setattr(node, "mem", inputs)
    return node


def _parametrised():
    node = braincog_node.LIFNode(step=2)
    parametrize.register_parametrization(node, "threshold", _Double())
    return node


def _watched():
    node = braincog_node.LIFNode(step=2)
    node.act_fun.register_forward_hook(lambda *_: None)
    return node


@pytest.mark.parametrize("make", [_derived, _patched, _parametrised, _watched])
def test_a_node_that_was_changed_stays_and_is_named(make, caplog):
    node = make()
    before = type(node)
    with caplog.at_level(logging.WARNING):
        accelerate(nn.Sequential(nn.Identity(), node))
    assert type(node) is before
    assert "left 1 nodes as they are: 1" in caplog.text


def test_a_time_constant_that_became_a_parameter_goes_on_learning():
    node = braincog_node.LIFNode(step=2, layer_by_layer=True)
    node.tau = nn.Parameter(torch.tensor(1.5))
    network = accelerate(nn.Sequential(node))
    x = torch.rand(4, 5)
    network(x).sum().backward()
    other = braincog_node.LIFNode(step=2, layer_by_layer=True, act_fun=QGateGrad)
    other.tau = nn.Parameter(torch.tensor(1.5))
    other(x).sum().backward()
    torch.testing.assert_close(node.tau.grad, other.tau.grad)
    node.set_n_tau(3.0)
    assert node.tau.item() == 3.0
    assert "LIFNode" in repr(node)


# Neurons of the user's own that derive from BrainCog's


class Decaying(braincog_node.BaseNode):
    """Written as BrainCog's own nodes are, with an argument that its networks do not know."""

    def __init__(self, threshold=0.5, decay=0.5, act_fun=SigmoidGrad, **kwargs):
        super().__init__(threshold, **kwargs)
        self.decay, self.act_fun = decay, act_fun(alpha=2.0)

    def integral(self, inputs):
        self.mem = self.mem * self.decay + inputs

    def calc_spike(self):
        self.spike = self.act_fun(self.mem - self.threshold)
        self.mem = self.mem * (1 - self.spike.detach())


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(brain_cog, "_REGISTERED", {})


def test_a_neuron_derived_from_brain_cogs_base_trains_in_a_network(registered):
    assert register_node(Decaying) is Decaying
    for node_type in ("Decaying", Decaying):
        node = make_node(node_type, step=2, layer_by_layer=True, threshold=1.0, act_fun="AtanGrad", alpha=3.0)
        assert node(torch.tensor([[0.75], [0.75]])).tolist() == [[0], [1]]
        assert node.node.act_fun.alpha.item() == 3
    model = timm.create_model("spikformer_digits", node_type="Decaying")
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    assert model.head.weight.grad is not None
    assert sum(isinstance(module, Decaying) for module in model.modules()) == 19


def _mine(**methods):
    return type("Mine", (Decaying,), methods)


def _own_threshold(self, threshold, **kwargs):
    Decaying.__init__(self, **kwargs)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (nn.ReLU, "neuron ReLU must be derived from a node of braincog_transformers, or from BrainCog's BaseNode"),
        (_mine(__init__=lambda self, a: None), r"Mine can't be built and run .*: TypeError: .* unexpected keyword"),
        (_mine(integral=lambda self, x: 1 / 0), "Mine can't be built and run .*: ZeroDivisionError: division by zero"),
        (
            type("Own", (LIFNode,), {"forward": lambda self, x: x[:1]}),
            r"Own must return spikes in the shape of its input, \(T\*B, ...\); \(4, 3\) gave \(1, 3\)",
        ),
        (_mine(__init__=_own_threshold), "Mine does not hand threshold to the constructor"),
        (type("BiasLIFNode", (Decaying,), {}), "neuron BiasLIFNode: another one has this name"),
        (type("Own", (LIFNode,), {"forward": lambda self, x: 1 / 0}), "Own can't be built and run"),
    ],
)
def test_what_can_t_be_a_neuron_is_one_line_where_it_is_registered(registered, cls, message):
    with pytest.raises(UserError, match=message) as caught:
        register_node(cls)
    assert len(str(caught.value).splitlines()) == 1
    if cls.__name__ == "Mine":
        with pytest.raises(UserError, match=message):
            make_node(cls, step=2)


def test_brain_cogs_other_nodes_are_registered_if_they_run(registered):
    found = {cls: None for cls in vars(braincog_node).values() if isinstance(cls, type)}
    for cls in found:
        if issubclass(cls, braincog_node.BaseNode) and cls.__name__ not in (*brain_cog._NODES, *brain_cog._WRAPPED):
            try:
                found[cls] = register_node(cls)
            except UserError:
                continue
    names = {cls.__name__ for cls in found.values() if cls is not None}
    assert {"BurstLIFNode", "BiasReLUNode"} <= names
    assert not {"BaseNode", "HHNode"} & names
