"""Each method converts a network, or names what in it it does not know; what it leaves analog is in the audit."""

import pytest
import torch
from torch import nn
from user_networks import NETWORKS, build

from braincog_transformers import UserError
from braincog_transformers.analysis.audit import audit
from braincog_transformers.conversion import METHODS, convert, prepare
from braincog_transformers.conversion.survey import survey, treatment

VITS = {"vit", "vit, relu", "vit, registers and scales", "vit, mean of tokens", "vit, no classifier", "deit"}
RELUS = {"relu", "relu in place", "relu in two places", "weight norm", "max pooling", "resnet"}
CONVERTED = {
    "qcfs": {*VITS, *RELUS, "vit, normalised queries", "vit, rms norm", "swin", "convnext", "mixer", "gelu"},
    "rate": {*RELUS, "vit, relu", "multihead attention"},
    "spikezip": {*VITS, "vit, normalised queries", "vit, rms norm"},
    "sta": VITS,
}
EXACT = {"qcfs": {*RELUS, "gelu"}, "rate": RELUS, "spikezip": CONVERTED["spikezip"]}
"""Those whose spiking networks approach their limits."""
CASES = [(method, name) for method in METHODS for name in NETWORKS]


def distance(one, other):
    return float((one - other).norm() / other.norm())


def test_every_method_says_what_it_knows():
    assert METHODS.keys() == CONVERTED.keys()
    for method in METHODS.values():
        assert method.knows
        for known in method.knows.values():
            assert {one.how for one in known} <= {"spiking", "analog"}


@pytest.mark.parametrize(("method", "name"), [case for case in CASES if case[1] in CONVERTED[case[0]]])
def test_a_known_network_is_converted_and_approaches_its_limit(method, name):
    network, x = build(name)
    network, x = network.double(), x.double()
    exact = name in EXACT.get(method, ())
    limit = prepare(network, method, data=x).eval()
    spiking = convert(network, method, data=x, step=64 if exact else 8, allow_silent=True)
    with torch.no_grad():
        outputs, wanted = spiking(x), limit(x)
    assert outputs.shape == wanted.shape == network(x).shape
    assert outputs.isfinite().all()
    if exact:
        assert distance(outputs, wanted) < (1e-9 if method == "spikezip" else 0.03)


@pytest.mark.parametrize(("method", "name"), [case for case in CASES if case[1] not in CONVERTED[case[0]]])
def test_of_any_other_network_what_is_not_known_is_named_in_one_line(method, name):
    network, x = build(name)
    with pytest.raises(UserError) as raised:
        prepare(network, method, data=x)
    message = str(raised.value)
    assert message.startswith(f"conversion: {method} ")
    assert "\n" not in message
    foreign = [one for one in survey(network, x) if treatment(METHODS[method], network, one) is None]
    for operator in foreign[:1]:
        assert f" doesn't know the {operator.name} in {operator.path or 'the forward of Own'}" in message


def test_those_who_know_an_operator_are_named():
    network, x = build("vit, swiglu")
    with pytest.raises(UserError, match=r"the gelu in blocks.0.mlp.act and 1 other place \(qcfs, spikezip.* know it\)"):
        prepare(network, "rate", data=x)
    with pytest.raises(UserError, match=r"the product of two activations in blocks.0.mlp .*\(no method knows it there"):
        prepare(network, "rate", data=x)
    network, x = build("relu as a function")
    with pytest.raises(UserError, match=r"in the forward of Own \(no .* there; rate does in modules ReLU, ReLU6\)"):
        prepare(network, "rate", data=x)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("qcfs", "vit, normalised queries"), ("qcfs", "swin"), ("qcfs", "max pooling"), ("qcfs", "relu"),
        ("rate", "vit, relu"), ("rate", "max pooling"), ("rate", "relu"),
        ("spikezip", "vit"), ("spikezip", "vit, normalised queries"), ("spikezip", "vit, relu"),
    ],
)  # fmt: skip
def test_the_audit_lists_what_a_method_says_it_leaves_analog_and_nothing_else(method, name):
    network, x = build(name)
    said = {operator.name: treatment(METHODS[method], network, operator) for operator in survey(network, x)}
    analog = {key for key, how in said.items() if how == "analog"}
    if "fused attention" in analog and method != "rate":  # it is written out
        analog = analog - {"fused attention"} | {"softmax"}
        analog |= {"matrix product of two activations"} if method == "spikezip" else set()
    spiking = convert(network, method, data=x, step=2, allow_silent=True)
    assert {operator.name for operator in audit(spiking, [x]).analog} == analog


def test_the_audit_of_sta_lists_its_softmax_and_its_products_and_no_operator_whose_units_are_neurons():
    network, x = build("vit")
    spiking = convert(network, "sta", data=x, step=2, allow_silent=True)
    found = {(operator.path, str(operator)) for operator in audit(spiking, [x]).analog}
    assert ("network.norm", "layer norm") in found
    assert ("network.blocks.0.attn.softmax.exp.approximator.1", "relu") in found
    assert ("network.blocks.1.attn.context.function", "matrix product of two activations of running means") in found
    assert not any(".mlp" in path or ".operator" in path or "encoder" in path for path, _ in found)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("rate", {"percentile": "0.9"}, "rate: percentile must be a finite number or None; got '0.9'"),
        ("rate", {"start": "half"}, "rate: start must be a finite number; got 'half'"),
        ("qcfs", {"norms": 3}, "qcfs: norms must be"),
        ("sta", {"clamp": "much"}, "sta: clamp must be"),
        ("sta", {"bipolar": "no"}, "sta: bipolar must be"),
    ],
)
def test_an_option_of_another_type_is_named(method, given, message):
    with pytest.raises(UserError) as caught:
        prepare(nn.Sequential(nn.Linear(2, 2)), method, data=[torch.zeros(1, 2)], **given)
    assert message in str(caught.value)
