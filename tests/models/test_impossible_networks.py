"""What no network can be built with is refused at once, in one line with the numbers: in Python, and by the program."""

import re

import pytest
import timm
import torch
from families import FAMILIES, batch

from braincog_transformers import UserError, cli, list_models
from braincog_transformers.models import REGISTERED
from braincog_transformers.models.arguments import hints_of

# an argument, a value that no network can have, and what the message says
ANY = [
    ("step", 0, "step must be at least 1; got 0"),
    ("step", -2, "step must be at least 1; got -2"),
    ("step", 1.5, "step must be a whole number; got 1.5"),
    ("in_chans", 0, "in_chans must be at least 1; got 0"),
    ("num_classes", -1, "num_classes must be at least 0; got -1"),
    ("img_size", 0, "img_size must be at least 1; got 0"),
    ("img_size", (16,), "img_size must be a whole number or 2 values, each a whole number; got (16,)"),
    ("mlp_ratio", 0, "mlp_ratio must be above 0; got 0"),
    ("drop_path_rate", 2, "drop_path_rate must be at most 1; got 2"),
    ("node_type", "LIFNoed", "unknown node type 'LIFNoed'; did you mean LIFNode"),
    ("node_type", 7, "node_type must be a name or a class; got 7"),
    ("threshold", -1, "threshold must be above 0; got -1"),
    ("tau", 0.5, "tau must be"),
    ("depth", 0, "depth must be at least 1; got 0"),
    ("depths", (), "depths must be several values, each a whole number; got ()"),
    ("patch_size", 3, "got 3"),
    ("embed_dim", 0, "embed_dim must be at least 1; got 0"),
    ("embed_dim", 7, "got"),
    ("embed_dims", 0, "embed_dims must be at least 1; got (0, 0"),
    ("embed_dims", 7, "7"),
    ("num_heads", 0, "0"),
    ("num_heads", 3, "3"),
]
OWN = [
    ("attention_free_spikformer_digits", {"mixing": "haar1d", "img_size": 7}, "7x7=49 tokens"),
    ("dista_digits", {"lags": 5}, "lags must be 1 to step; got lags=5, step=4"),
    ("dista_digits", {"denoise": float("nan")}, "denoise must be a finite number; got nan"),
    ("dynamic_spikformer_digits", {"penalty": -1.0}, "penalty must be at least 0; got -1"),
    ("ost_4_384_cifar", {"thresholds": 10**7}, "thresholds must be at most 256; got 10000000"),
]


def arguments_of(family):
    """Return the arguments of a family's class beside those of its neurons and its parts."""
    return hints_of(REGISTERED[family.EXAMPLE].cls)


@pytest.mark.parametrize(("argument", "value", "rule"), ANY, ids=lambda part: str(part)[:24])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.EXAMPLE)
def test_no_network_is_built_with_it(family, argument, value, rule):
    known = arguments_of(family)
    if argument == "embed_dims" in known:
        value = (value,) * len(family.TINY["embed_dims"])
    if argument not in known and argument not in ("node_type", "threshold", "tau"):
        pytest.skip(f"{family.EXAMPLE} has no {argument}")
    with torch.device("meta"), pytest.raises(UserError, match=re.escape(rule)) as refused:
        timm.create_model(family.EXAMPLE, **{**family.TINY, argument: value})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "arguments", "rule"), OWN, ids=str)
def test_arguments_of_a_single_family(name, arguments, rule):
    with torch.device("meta"), pytest.raises(UserError, match=re.escape(rule)):
        timm.create_model(name, **arguments)


@pytest.mark.parametrize("side", [1, 7, 18, 33])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.EXAMPLE)
def test_a_side_is_refused_with_the_numbers_or_works(family, side):
    message = ""
    try:
        model = timm.create_model(family.EXAMPLE, **{**family.TINY, "img_size": side})
    except UserError as error:
        message = str(error)
    if message:
        assert f"({side}, {side})" in message
    else:
        assert model.eval()(batch(model)).shape == (2, 5)


LINES = [
    (["--step", "0"], "--step"),
    (["--step", "1.5"], "--step"),
    (["--node-type", "LIFNoed"], "did you mean LIFNode"),
    (["--model-kwargs", "drop_path_rate=2"], "drop_path_rate"),
    (["--model-kwargs", "in_chans=0"], "in_chans"),
    (["--model-kwargs", "qqq=1"], "'qqq'; choose from "),
]
SMALL = [name for name in list_models("*digits") if not REGISTERED[name].alias_of]


@pytest.mark.parametrize(("options", "rule"), LINES, ids=lambda part: " ".join(part) if isinstance(part, list) else "")
@pytest.mark.parametrize("name", SMALL)
def test_the_program_says_it_in_one_line(name, options, rule, capsys, tmp_path):
    dataset = "ndigits" if name.endswith("ndigits") else "digits"
    given = ["--dataset", dataset, "--model", name, "--device", "cpu", "--output", str(tmp_path), *options]
    try:
        code = cli.main(given)
    except SystemExit as stop:  # what argparse refuses
        code = stop.code
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert rule in said[-1]
    assert not [line for line in said if "Traceback" in line]
    assert list(tmp_path.iterdir()) == []
