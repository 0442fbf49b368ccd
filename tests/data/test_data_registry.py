"""The table of data sets."""

import subprocess
import sys
from pathlib import Path

import pytest

from braincog_transformers.data import DATASETS
from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.events.splits import SPLITS
from braincog_transformers.data.readers import READERS
from braincog_transformers.data.registry import lookup
from braincog_transformers.data.settings import Augment
from braincog_transformers.errors import UserError
from braincog_transformers.recipe import ENTRIES


@pytest.mark.parametrize("name", DATASETS)
def test_every_entry_is_complete(name):
    info = DATASETS[name]
    assert info.name == name
    assert len(info.classes) in (0, info.num_classes)
    assert len(set(info.classes)) == len(info.classes)
    colours = info.in_chans if info.kind == "image" else info.size[1] if info.length else 0
    if info.kind == "task":
        assert info.task in ENTRIES["task"].metadata["choices"]
        colours = len(info.mean)
        assert colours in (0, info.in_chans)
    assert len(info.mean) == len(info.std) == colours
    assert bool(info.colours) == bool(colours)
    assert set(info.endings) - {".npz"} <= READERS.keys()  # which ES-ImageNet's own recordings read
    assert set(info.splits) <= SPLITS.keys()
    assert (info.kind == "event") == bool(info.endings)
    assert info.tree
    assert info.source


@pytest.mark.parametrize("name", [name for name in DATASETS if DATASETS[name].kind != "task"])
def test_no_default_augmentation_is_left_open(name):
    unused = {"scale", "ratio", "color_jitter", "aa", "reprob", "remode", "recount", "train_interpolation"}
    unused |= {"interpolation", "crop_pct"}
    unused = {"image": set(), "event": unused, "sequence": unused | {"hflip", "vflip", "event_augment"}}
    unused = unused[DATASETS[name].kind]
    filled = Augment().filled(DATASETS[name].augment)
    assert {key for key, value in vars(filled).items() if value is None} == unused


def test_a_set_of_another_task_is_no_set_of_classes(tmp_path):
    with pytest.raises(UserError, match="data set voc is for --task segment, and has no classes of samples"):
        build_datasets("voc", tmp_path)


def test_what_the_user_gave_wins_over_the_sets_default():
    assert Augment(hflip=0.0).filled(DATASETS["cifar10"].augment).hflip == 0.0
    assert Augment().filled(DATASETS["cifar10"].augment).hflip == 0.5


@pytest.mark.parametrize("name", ["digits", "ndigits", "nmnist", "mnist", "fashion", "dvsg"])
def test_characters_clothes_and_left_and_right_hands_are_not_flipped(name):
    assert DATASETS[name].augment.hflip == 0


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UserError, match="did you mean dvsc10"):
        lookup("dvsc100")


def test_the_table_needs_no_torch():
    package = Path(sys.modules["braincog_transformers.errors"].__file__).parent
    code = (
        "import sys, types\n"
        f"root = types.ModuleType('p'); root.__path__ = [{str(package)!r}]; sys.modules['p'] = root\n"
        "import p.data\n"
        "assert 'dvsc10' in p.data.DATASETS and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
