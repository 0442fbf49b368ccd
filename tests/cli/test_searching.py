"""`--search`: its table, its file, and mistakes in one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml

from braincog_transformers import cli
from braincog_transformers.recipe import keywords

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "search.md"
# a small space for digits, searched in a moment
DIGITS = [
    *("--search", "autost", "--dataset", "digits", "--search-patch", "1", "--search-dims", "16", "32"),
    *("--search-depths", "1", "2", "--search-params", "0.02", "0.05", "--search-generations", "3"),
]


def searched(capsys, *argv):
    """Run a search, and return its rows, each with its keywords, and the lines below."""
    assert cli.main([*DIGITS, *argv]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "GMAC/step", "params", "alike", "--model-kwargs"]
    rows = [line.split() for line in lines[1:] if line[0].isdigit() and "scored" not in line]
    return [(row[:5], keywords(row[5:])) for row in rows], lines[1 + len(rows) :]


def test_each_row_is_a_network_of_its_size(capsys):
    rows, below = searched(capsys)
    assert 1 < len(rows) <= 10
    assert [int(row[0]) for row, _ in rows] == list(range(1, len(rows) + 1))
    for row, arguments in rows:
        with torch.device("meta"):
            network = timm.create_model("autost", in_chans=1, img_size=8, num_classes=10, **arguments)
        assert f"{sum(p.numel() for p in network.parameters()) / 1e6:.3f}" == row[2]
    gmacs = [float(row[1]) for row, _ in rows]
    assert gmacs == sorted(gmacs, reverse=True)
    assert below[0].startswith(f"{sum(int(row[4]) for row, _ in rows)} candidates scored")


def test_one_seed_gives_one_table(capsys):
    assert searched(capsys, "--seed", "5") == searched(capsys, "--seed", "5")
    assert searched(capsys, "--seed", "5") != searched(capsys, "--seed", "6")


def test_the_first_row_comes_with_the_command_that_trains_it(capsys):
    rows, below = searched(capsys, "--step", "2", "--search-results", "1")
    command = below[-1].removeprefix("train the first: python main.py ").split()
    options = cli.resolve(command)
    assert (options.model.model, options.data.dataset, options.model.step) == ("autost", "digits", 2)
    assert keywords(options.model.model_kwargs) == rows[0][1]


def test_events_are_searched_for_at_the_side_that_is_trained(capsys):
    assert cli.main(["--search", "--dataset", "dvsc10", "--search-generations", "1"]) == 0
    assert "--dataset dvsc10 --event-size 128 " in capsys.readouterr().out
    assert cli.main(["--search", "--dataset", "dvsc10", "--event-size", "64", "--search-generations", "1"]) == 0
    assert "--dataset dvsc10 --event-size 64 " in capsys.readouterr().out


@pytest.mark.parametrize(("name", "read"), [("found.json", json.loads), ("found.yaml", yaml.safe_load)])
def test_the_table_is_written_to_a_file(capsys, tmp_path, name, read):
    path = tmp_path / name
    rows, below = searched(capsys, "--search-file", str(path))
    assert below[1] == f"written to {path}"
    content = read(path.read_text())
    assert [keywords(one["model_kwargs"]) for one in content["results"]] == [arguments for _, arguments in rows]
    assert content["task"] == {"img_size": [8, 8], "in_chans": 1, "num_classes": 10, "patch_size": 1}
    assert content["million_parameters"] == [0.02, 0.05]
    assert content["evolution"]["seed"] == 42
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_result_in_the_file_is_a_part_of_a_recipe(capsys, tmp_path):
    rows, _ = searched(capsys, "--search-file", str(tmp_path / "found.yaml"))
    first = yaml.safe_load((tmp_path / "found.yaml").read_text())["results"][0]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"dataset": "digits", **{k: first[k] for k in ("model", "model_kwargs")}}))
    options = cli.resolve(["-c", str(recipe)])
    assert keywords(options.model.model_kwargs) == rows[0][1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--search", "resnet"], "unknown family to search 'resnet'; choose from autost"),
        (["--search", "--search-space", "huge"], "--search-space must be one of tiny, small, base; got 'huge'"),
        (["--search", "--search-params", "0.1", "0.2"], "no candidate of the search space has 0.1 to 0.2 million"),
        (["--search", "--search-params", "12", "11"], "search: the window must be the smallest and the largest"),
        (["--search", "--search-params", "11"], "--search-params needs 2 values; got 1"),
        (["--search", "--search-params", "x", "11"], "--search-params needs a number; got 'x'"),
        (["--search", "--search-params", "nan", "11"], "--search-params must be finite; got nan"),
        (["--search", "--search-heads", "7"], "search space: embed_dim must be multiples of 7 (num_heads); got 256"),
        (["--search", "--search-population", "0"], "--search-population must be at least 1; got 0"),
        (["--search", "--search-size-prob", "1.5"], "--search-size-prob must be at most 1; got 1.5"),
        (["--search", "--search-patch", "3"], "search: patch_size must be 1, 2, 4, 8 or 16; got 3"),
        (["--search", "--img-size", "30"], "search: img_size must be multiples of patch_size=4; got 30"),
        (["--search", "--seed", "-1"], "--seed must be at least 0; got -1"),
        (["--search", "--dataset", "cifar11"], "unknown data set 'cifar11'"),
        (["--search", "--dataset", "shd"], "--search: shd holds sequences"),
        (["--search", "--dataset", "dvsc10", "--img-size", "32"], "--img-size: dvsc10 holds event data; use --event"),
        (["--search", "--dataset", "ncars"], "--search: frames of ncars are not square; name a side by --event-size"),
        (["--search", "--lr", "1", "--model", "x"], "--lr, --model: without effect on --search; leave it out"),
        (["--search", "--search-file", "found.txt"], "--search-file must end in .json or .yaml; got found.txt"),
        (["--search", "--search-file", "nowhere/found.yaml"], "--search-file: no folder nowhere"),
        (["--search", "--search-file", ""], "--search-file is empty; name a file, or leave it out"),
        (["--dataset", "digits", "--search-top-k", "3"], "--search-top-k: without effect as long as --search is not"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_in_one_line_and_status_2(argv, message, capsys):
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: " + message), captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_folder_is_no_file_to_write_to(tmp_path, capsys):
    (tmp_path / "found.yaml").mkdir()
    assert cli.main([*DIGITS, "--search-file", str(tmp_path / "found.yaml")]) == 2
    assert "is a directory" in capsys.readouterr().err.lower()


@pytest.mark.skipif(not PAGE.exists(), reason="docs/search.md is not beside the tests")
def test_the_page_shows_what_the_command_prints(capsys):
    shown = re.findall(
        r"```bash\npython main\.py (--search .*)\n```\n\n(?:.+\n\n)?```\n((?:.+\n)+)```", PAGE.read_text()
    )
    assert len(shown) == 2
    for command, table in shown:
        assert cli.main(command.split()) == 0
        assert capsys.readouterr().out == table


def test_a_search_needs_neither_torch_nor_braincog():
    code = f"""
import sys
from braincog_transformers_main import main
print("STATUS", main({DIGITS!r}), sorted({{"torch", "timm", "braincog", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines()[-1] == "STATUS 0 []", done.stderr
    assert "search: " in done.stderr  # the progress bar
    assert "generation" not in done.stdout
