"""`--data-info`: what a set is, without torch; what lies in a folder, and what is missing there."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from braincog_transformers import cli
from braincog_transformers.cli.data_info import data_info
from braincog_transformers.data import DATASETS

ROOT = Path(__file__).parents[2]


def lines(capsys, *argv):
    assert cli.main(["--data-info", *argv]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_says_what_it_is_and_how_to_get_it(name):
    info = DATASETS[name]
    text = "\n".join(data_info(name))
    assert info.tree in text
    assert str(info.num_classes or "none") in text
    assert (f"{info.samples[0]:,}" if info.samples else "any number") in text
    assert all(f"{value:.4f}" in text for value in (*info.mean, *info.std))
    assert (info.source in text) or not info.folders
    assert info.licence in text
    assert info.citation in text
    assert ("--download fetches it" in text) == info.downloadable
    assert all(split in text for split in info.splits)


def test_the_answer_needs_no_torch():
    code = """
import sys
from braincog_transformers_main import main
info = [main(["--data-info", *more]) for more in (["--dataset", "dvsc10"], [], ["--dataset", "cifra10"])]
print(*info)
print(sorted({"torch", "timm", "numpy", "braincog"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines()[-2:] == ["0 0 2", "[]"]
    assert done.stderr.startswith("error: unknown data set 'cifra10'; did you mean cifar10")


def test_without_a_name_there_is_a_table_of_all(capsys):
    table = lines(capsys)
    assert [line.split()[0] for line in table[1:]] == list(DATASETS)
    assert next(line for line in table if line.startswith("cifar10 ")).split()[1:3] == ["image", "10"]


def test_what_recipes_make_of_the_data_is_shown(capsys):
    shown = lines(capsys, "--dataset", "dvsc10")
    recipe = next(line for line in shown if "spikingresformer_cifar10dvs.yaml" in line)
    assert "--event-size 64 --polarity-sum --step 16" in recipe
    assert "--lr" not in recipe


def test_a_recipe_names_the_set(capsys):
    assert lines(capsys, "-c", str(ROOT / "examples/recipes/tim_shd.yaml"))[0].split() == ["shd", "sequence", "data"]


def test_what_lies_there_is_counted_by_class(capsys, tmp_path):
    for part, counts in (("train", (3, 1)), ("val", (2, 2))):
        for name, count in zip(("n01", "n02"), counts, strict=True):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / part / name / f"{number}.JPEG")
    shown = [line.split(maxsplit=1) for line in lines(capsys, "--dataset", "imnet", "--data-dir", str(tmp_path))]
    assert ["found", f"4 training and 4 test samples in {tmp_path}"] in shown
    assert shown[-2:] == [["n01:", "3 + 2"], ["n02:", "1 + 2"]]


def test_what_is_missing_is_said(capsys, tmp_path):
    last = lines(capsys, "--dataset", "nmnist", "--data-dir", str(tmp_path))[-1]
    assert last.startswith("missing")
    assert "data set nmnist not found; looked in" in last


@pytest.mark.parametrize("argv", [["--datasett", "mnist"], ["--dataset", "mnist", "stray"], ["--step", "x"]])
def test_mistakes_beside_it_are_named(argv, capsys):
    assert cli.main(["--data-info", *argv]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_set_for_a_task_says_which(capsys, tmp_path):
    assert lines(capsys, "--dataset", "track_scene")[:2] == ["track_scene  data for --task track", "classes      none"]
    (row,) = (line.split() for line in lines(capsys) if line.startswith("mmhpsd "))
    assert row[:5] == ["mmhpsd", "task", "pose", "none", "any"]
    found = [" ".join(line.split()) for line in lines(capsys, "--dataset", "mmhpsd", "--data-dir", str(tmp_path))]
    assert "found not looked at; main.py --task pose --dataset mmhpsd reads the files" in found
