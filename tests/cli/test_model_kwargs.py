"""`--model-kwargs` that no network can be built with end in one line and status 2, whatever the family."""

import pytest
import timm
import torch
from families import FAMILIES

from braincog_transformers import UserError, cli
from braincog_transformers.models import REGISTERED
from braincog_transformers.models.arguments import hints_of
from braincog_transformers.models.base import NodeOptions

# set by options of their own, or no argument at all
OTHERS = {
    *("img_size", "in_chans", "num_classes", "step", "drop_rate", "drop_path_rate", "encode_type", "as_released"),
    *("distilled", "return", *NodeOptions.__dataclass_fields__),
}
BAD = ("x", (), (1.5,), ((1, 2), 3), ("a", "b"), (None,), {"a": 1}, -1, 10**12, float("nan"))


def arguments_of(cls):
    """Return the arguments that a network's constructor and those of its bases name, without the `**` ones."""
    named = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base) and base.__module__.startswith("braincog_transformers"):
            named |= dict.fromkeys(base.__init__.__kwdefaults__ or {})
    return [name for name in named if name in hints_of(cls) and name not in OTHERS]


def outcome(name, arguments):
    """Say how a network is built without memory: "", or why it is refused; any other error passes through."""
    try:
        with torch.device("meta"):
            timm.create_model(name, **arguments)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.EXAMPLE)
def test_an_argument_of_any_value_is_built_or_refused_in_few_words(family):
    named = arguments_of(REGISTERED[family.EXAMPLE].cls)
    found = [outcome(family.EXAMPLE, {**family.TINY, name: value}) for name in named for value in BAD]
    assert len([text for text in found if text]) > 20
    assert max(map(len, found)) < 400


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (
            "autost_digits",
            "num_heads=4,4,4",
            "num_heads must have one value for each of the 2 blocks (depth), or be one",
        ),
        ("autost_digits", "mlp_ratio=[2]", "mlp_ratio must have one value for each of the 2 blocks (depth)"),
        ("autost_digits", "num_heads=[]", "num_heads must be a whole number or several values, each a whole number"),
        ("autost_digits", "num_heads=4,x", "num_heads must be a whole number or several values, each a whole number"),
        ("autost_digits", "num_heads=[4,[4]]", "num_heads must be a whole number or several values, each a whole"),
        ("autost_digits", "num_heads=4,3", "embed_dim must be a multiple of num_heads; got embed_dim=64, num_heads=3"),
        ("autost_digits", "num_heads=4,0", "num_heads must be at least 1; got (4, 0)"),
        ("autost_digits", "mlp_ratio=4,-1", "mlp_ratio must be above 0; got (4, -1)"),
        ("autost_digits", "mlp_ratio=4,1e999", "mlp_ratio must be a finite number or several values, each a finite"),
        ("autost_digits", "depth=2,2", "depth must be a whole number; got (2, 2)"),
        ("autost_digits", "patch_size=3", "patch_size must be 1, 2, 4, 8 or 16; got 3"),
        ("autost_digits", "mlp_ratios=3,3", "'mlp_ratios'; did you mean mlp_ratio"),
        ("ost_digits", "thresholds=0", "thresholds must be at least 1; got 0"),
        ("ost_digits", "thresholds=1000000000000", "thresholds must be at most 256"),
        ("ost_digits", "downsampling=con", "unknown OST downsampling 'con'; did you mean conv"),
        ("sdt_v3_digits", "embed_dims=32,48", "embed_dims"),
        (
            "sdt_v3_digits",
            "embed_dim=64",
            "embed_dim is the last of embed_dims; got embed_dim=64",
        ),
        ("spikingresformer_digits", "embed_dim=64", "embed_dim is the last of embed_dims; got embed_dim=64"),
        ("sdt_v3_digits", "layer_scale=abc", "layer_scale must be a finite number"),
        ("spikeformer_digits", "kernel_size=0", "kernel_size must be at least 1; got 0"),
        ("spikeformer_digits", "blocks_per_stage=1.5", "blocks_per_stage must be a whole number; got 1.5"),
        ("stsa_ndigits", "mlp_drop_rate=2", "mlp_drop_rate must be at most 1; got 2"),
        ("spikformer_v2_digits", "pair_nodes=[1]", "pair_nodes must be 'both' or 'between' or 'none'; got [1]"),
        ("attention_free_spikformer_digits", "mixing=fft3d", "did you mean fft2d or fft1d"),
        ("dista_digits", "lags=-1", "lags"),
        ("dynamic_spikformer_digits", "penalty=nan", "penalty must be a finite number"),
        *((family.EXAMPLE, "dpeth=2", "'dpeth'; did you mean depth") for family in FAMILIES),
    ],
)
def test_a_mistake_in_model_kwargs_is_one_line_and_status_2(model, given, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {1: "digits", 2: "ndigits", 3: "cifar10"}[timm.get_pretrained_cfg(model).input_size[0]]
    assert cli.main(["--model", model, "--dataset", data, "--model-kwargs", given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert "can't be built (" not in error  # what a constructor makes of a value that nothing has checked
    assert not list(tmp_path.iterdir())
