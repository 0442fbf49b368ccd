"""The benchmarks: their arithmetic, their count of memory, and a small run of each."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from families import FAMILIES, dynamic_spikformer, qkformer, sdt, sdt_v2

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not beside the tests", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
    code_lines,
    compilation,
    conversion,
    conversion_braincog,
    evaluation,
    neurons,
    run,
    scaling,
    two_epochs,
)
from benchmarks.all import COMMANDS, insert  # noqa: E402
from benchmarks.charts import plot_comparisons, plot_scaling  # noqa: E402
from benchmarks.conversion_sides import LIMIT, RECIPES, SOURCE, build, official_qann, torchvision_vit  # noqa: E402
from benchmarks.harness import Summary, as_plain, markdown, measure, memory, summarise  # noqa: E402
from benchmarks.sides import FLOOR, JELLY_MODEL, JELLY_NEURONS, SIDES, Case, Unavailable, build_side  # noqa: E402
from braincog_transformers.conversion import prepare  # noqa: E402
from braincog_transformers.models import REGISTERED  # noqa: E402
from braincog_transformers.ops.kernels import integer_products  # noqa: E402

BRAINCOG = "BrainCog's neurons"
CPU = torch.device("cpu")
HAS_JELLY = importlib.util.find_spec("spikingjelly") is not None
needs_jelly = pytest.mark.skipif(not HAS_JELLY, reason="needs SpikingJelly")


def test_ratios_are_taken_round_by_round():
    times = {"ours": [1.0, 10.0, 2.0, 4.0, 5.0], "theirs": [2.0, 10.0, 6.0, 16.0, 25.0]}
    found = summarise(times)
    assert found["ours"] == Summary(ms=4.0, ratio=1.0, low=1.0, high=1.0)
    assert found["theirs"] == Summary(ms=10.0, ratio=3.0, low=2.0, high=4.0)


def test_sides_take_turns():
    called = []
    times = measure({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=3, warm_up=1)
    assert "".join(called) == "abababab"
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}


def test_a_table_has_a_rule_under_its_head():
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


# Memory. The toy keeps, for the backward pass, the sigmoid's result: 1000 numbers of 4 bytes. Its input and what
# follows by slicing allocate nothing, and the loss isn't counted.


def kept(forward):
    forward()
    return memory(forward, forget=lambda: None, backward=True, device=CPU)


@pytest.fixture
def weight():
    return torch.rand(1000, requires_grad=True)


def test_kept_bytes_without_hooks(weight):
    assert kept(lambda: weight.sigmoid().sum()).kept == 4000


def test_kept_bytes_of_what_is_packed_by_hooks(weight):
    def packed():
        with torch.autograd.graph.saved_tensors_hooks(torch.Tensor.byte, torch.Tensor.float):
            return weight.sigmoid().sum()

    assert kept(packed).kept == 1000


def test_kept_bytes_of_a_function_that_keeps_what_autograd_does_not_know(weight):
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.hidden = x.half()
            return x.sum()

        @staticmethod
        def backward(ctx, grad):
            return grad * ctx.hidden.float()

    assert kept(lambda: Hidden.apply(weight)).kept == 2000


def test_bytes_that_the_graph_does_not_hold_are_not_kept(weight):
    state = []

    def forward():
        state.append(torch.zeros(500))
        return weight.sigmoid().sum()

    assert memory(forward, forget=state.clear, backward=True, device=CPU).kept == 4000


def test_a_tensor_kept_twice_counts_once(weight):
    def twice():
        shared = weight.sigmoid()
        return (shared * shared).sum()

    assert kept(twice).kept == 4000


def test_peak_counts_what_lives_at_once(weight):
    # While the backward pass runs: the sigmoid's result, and the gradient.
    assert kept(lambda: weight.sigmoid().sum()).peak == pytest.approx(8000, abs=16)


# Sides


# in Dynamic SpikFormer a mask stands around each neuron
@pytest.mark.parametrize("family", [f for f in FAMILIES if f is not dynamic_spikformer], ids=lambda f: f.EXAMPLE)
def test_neurons_can_be_exchanged_in_every_family(family):
    case = Case(family.EXAMPLE, batch=2, options={**family.TINY, "node_type": "LIFNode", "act_fun": "SigmoidGrad"})
    for name in (BRAINCOG, FLOOR):
        side = build_side(case, name)
        side()
        assert side.parameters == build_side(case, "ours").parameters


@needs_jelly
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_one_comparison_end_to_end(mode):
    names = [name for name in SIDES if name != "ours, compiled"]
    found = run.compare(Case("spikformer_digits", mode, batch=2), names, rounds=2)
    assert found["sides"].keys() | found["missing"].keys() == set(names)
    other = "ours, fused" if mode == "training" else "ours, spikes not packed"
    without_units = ["ours, products in floating point"] * (not integer_products.UNITS)
    assert found["missing"].keys() == {JELLY_MODEL, other, *without_units}
    assert found["difference"] < 1e-5
    text = run.show(found)
    assert all(name in text for name in names)
    if mode == "training":
        assert 0 < found["sides"]["ours"]["kept"] < found["sides"][JELLY_NEURONS]["kept"]
    json.dumps(found)


@needs_jelly
@pytest.mark.parametrize("name", ["spikformer_2_384_cifar", "qkformer_10_384", "sdt_2_256_cifar"])
def test_spikingjellys_own_models_have_the_published_size(name):
    sizes = {"img_size": 32, "step": 1}
    theirs, ours = (build_side(Case(name, batch=2, options=sizes), side) for side in (JELLY_MODEL, "ours"))
    theirs()
    assert theirs.parameters == pytest.approx(ours.parameters, rel=0.002)


def test_a_side_that_is_not_there_says_why():
    with pytest.raises(Unavailable, match="fuse\\(\\) folds"):
        build_side(Case("spikformer_digits"), "ours, fused")


@pytest.mark.slow
def test_a_side_can_run_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    side = run.Elsewhere(Case("spikformer_digits", batch=2), "ours")
    side()
    assert side.parameters == build_side(Case("spikformer_digits"), "ours").parameters
    assert side.memory.kept > 0
    with pytest.raises(Unavailable, match="fuse"):
        run.Elsewhere(Case("spikformer_digits"), "ours, fused")


# Growth and compilation


@pytest.mark.parametrize("name", ["QKFormer, Q-K token attention", "SGLFormer, local"])
def test_attention_runs_alone(name):
    scaling.attention_call(scaling.ATTENTIONS[name], 32, 1)()


def test_every_family_states_whether_its_attention_is_linear():
    families = {type(timm.create_model(case.model, step=1)).__name__ for case in scaling.ATTENTIONS.values()}
    assert len(families) == len(FAMILIES) - 1  # TIM has as many tokens as a head is wide
    assert "not linear" in scaling.token_goal("SpikingResformer")


def test_steps_grow_a_small_network():
    assert scaling.grow_steps(1, ("sdt_digits",))["sdt_digits"].ratio > 0


def test_forms_of_an_evaluation_agree(capsys):
    evaluation.main(
        ["--model", "spikformer_digits", "--forms", "fused", "--dtype", "float32", "--batch", "3", "--rounds", "1"]
    )
    shown = capsys.readouterr().out
    rows = {line.split(" | ")[0].strip("| "): line for line in shown.splitlines() if line.startswith("| ")}
    assert rows.keys() == {"form", "---", "ours", "fused"}
    assert "3 of 3" in rows["fused"]


def test_kinds_of_neurons_are_compared_with_the_first(capsys):
    neurons.main(["--kinds", "LIFNode", "CLIFNode", "--shape", "8", "3", "--rounds", "2"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == 2 * ["| neuron", "| ---", "| LIFNode", "| CLIFNode"]
    assert rows[2][2:] == ["1.00", "1.00 to 1.00 |"]


def test_conversion_is_compared_with_brain_cogs_in_all_networks(capsys):
    conversion_braincog.main(["--step", "3", "--seeds", "1", "--epochs", "1"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    tables = [rows[at : at + 7] for at in range(0, len(rows), 7)]
    assert len(tables) == len(conversion_braincog.NETWORKS)
    for head, _, source, *others in tables:
        assert head[1:] == ["T=1", "T=2"]
        assert [row[0] for row in (source, *others)] == [*conversion_braincog.SIDES]
        assert source[1] == source[2]
        assert all(0 <= float(value) <= 100 for row in others for value in row[1:])


# Conversions


def tiny_case(method):
    torch.manual_seed(0)
    sizes = {**conversion.DIGITS_VIT, "embed_dim": 16, "depth": 1, "num_heads": 2}
    if method == "rate":
        source = conversion.small_cnn()
    else:
        source = timm.create_model("vit_tiny_patch16_224", **sizes, act_layer=conversion.ACTIVATION[method])
    x = torch.randn(6, 3, 8, 8)
    return conversion.Case(method, source.eval(), prepare(source.eval(), method, data=x), [x]), x


def test_the_sources_of_spikingjellys_recipes_compute_what_ours_do():
    for method, twin in (("sta", torchvision_vit), ("spikezip", official_qann)):
        case, x = tiny_case(method)
        same = case.source if method == "sta" else case.limit
        torch.testing.assert_close(twin(case)(x), same(x), rtol=1e-5, atol=1e-5)


@needs_jelly
@torch.no_grad()
def test_spikingjellys_recipes_approach_the_same_answers():
    for method, steps, names in (("rate", 128, RECIPES["rate"]), ("sta", 64, ["STATransformerRecipe"])):
        case, x = tiny_case(method)
        wanted = build(case, SOURCE, 1).run(x)[-1]
        for name in names:
            found = build(case, name, steps).run(x)[-1]
            assert (found - wanted).norm() < 0.2 * wanted.norm(), name
    case, x = tiny_case("spikezip")
    wanted = build(case, LIMIT, 1).run(x)[-1]
    for name in ("ours", "SpikeZIPTFQANNRecipe", "SpikeZIPTFQANNRecipe, step by step"):
        torch.testing.assert_close(build(case, name, 96).run(x)[-1], wanted, rtol=1e-4, atol=1e-4)


def test_a_conversion_is_shown_beside_its_source():
    case, x = tiny_case("spikezip")
    for shown in (
        conversion.accuracies(case, (x, torch.zeros(6, dtype=torch.long)), [1, 64]),
        conversion.speeds(case, x, 2, 2),
    ):
        head, _, *rows = [line.strip("|").split("|") for line in shown.splitlines() if line.startswith("| ")]
        assert [row[0].strip() for row in rows][:3] == [SOURCE, LIMIT, "ours"]
        assert {len(row) for row in rows} == {len(head)}
        assert ("Not measured: SpikeZIPTFQANNRecipe, because spikingjelly" in shown) == (not HAS_JELLY)


def test_attentions_tokens_grow_fourfold():
    for case in scaling.ATTENTIONS.values():
        with torch.device("meta"):
            small, large = (scaling.received(case, side, 1)[1] for side in (case.side, 2 * case.side))
        assert large.numel() == 4 * small.numel(), case


@pytest.mark.slow
@pytest.mark.kernels(compiler=False)
# that each is one graph at all is tested with the models
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("family", [qkformer, sdt, sdt_v2], ids=lambda family: family.EXAMPLE)
def test_second_graph_serves_all_other_batch_sizes(family, training):
    depths = {"depth": 1, "depths": (1,) * len(family.TINY.get("depths", ()))}
    sizes = {**family.TINY, **{key: value for key, value in depths.items() if key in family.TINY}}
    network = timm.create_model(family.EXAMPLE, **sizes)
    found = compilation.count(network, (6, 6, 6, 6, 4, 3), training=training)
    assert found.breaks == []
    assert found.graphs == [1, 1, 1, 1, 2, 2]


# Everything


def test_printed_tables_go_between_their_marks():
    page = "a\n<!-- begin run -->\nold\n<!-- end run -->\nb\n"
    assert insert(page, "run", "| new |\n") == "a\n<!-- begin run -->\n\n| new |\n\n<!-- end run -->\nb\n"
    with pytest.raises(ValueError, match="no marks"):
        insert(page, "events", "")


def test_the_page_has_marks_for_every_benchmark():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    for name in COMMANDS:
        insert(page, name, "")


def test_charts_show_every_side_and_every_row():
    rows = as_plain({"a": Summary(1, 4, 3.9, 4.1), "b": Summary(1, 5, 4.9, 5.2)})
    one = {"model": "m", "mode": "training", "dtype": "float32", "sides": rows}
    figure = plot_comparisons({"comparisons": [one] * 5})
    assert [len(ax.patches) for ax in figure.axes] == [2] * 5
    figure = plot_scaling({"tokens": rows, "steps": rows})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]


@pytest.mark.filterwarnings("ignore:'benchmarks.all' found in sys.modules:RuntimeWarning")
def test_the_command_explains_itself(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["all", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("benchmarks.all", run_name="__main__")
    assert "--only" in capsys.readouterr().out


def test_lines_of_code_are_those_without_blanks_comments_and_docstrings():
    text = '''"""A module.

More."""

import os  # why

# alone
class A:
    """What."""

    x = (
        1,
    )
    "no doc"
'''
    assert code_lines.count(text) == 6


def test_every_network_with_official_code_has_its_lines_counted():
    known = {name for family in code_lines.FAMILIES for name in family.ours}
    coded = {entry.cls.__module__.rpartition(".")[2] for entry in REGISTERED.values() if not entry.cls.status}
    assert coded <= known


def test_lines_of_official_files_are_read_from_clones_at_the_commit(tmp_path, monkeypatch):
    clone = tmp_path / "me" / "net"
    clone.mkdir(parents=True)
    git = ["git", "-C", str(clone), "-c", "user.name=me", "-c", "user.email=me@example.org"]

    def commit(**files):
        for name, text in files.items():
            (clone / f"{name}.py").write_text(text)
        for command in (["add", "."], ["commit", "-qm", "all"]):
            subprocess.run([*git, *command], check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    subprocess.run([*git, "init", "-q"], check=True)
    first = commit(a="x = 1\n", b="x = 1\n", c="x = 1\ny = 2\n")
    commit(a="x = 1\n" * 9)
    families = [
        code_lines.Family("Net", ("ost",), "me/net", first, ("a.py", "b.py", "c.py")),
        code_lines.Family("Other", (), "me/other", first, ("a.py",)),
    ]
    monkeypatch.setattr(code_lines, "FAMILIES", families)
    net, other = code_lines.rows(tmp_path)
    assert net[2:] == ("3 in 2", "2", f"me/net at {first[:7]}")
    assert int(net[1]) > 100
    assert other[1:4] == ("in those above", "no clone", "")


def test_two_epochs_are_of_the_smallest_variant_of_every_network():
    small = {REGISTERED[name].cls.__module__ for name in two_epochs.smallest()}
    larger = {"braincog_transformers.models.sdt_v3_large"}  # of a family with a smaller network
    assert small == {entry.cls.__module__ for entry in REGISTERED.values()} - larger
