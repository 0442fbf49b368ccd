"""What the zoo says of itself."""

import re

import pytest

import braincog_transformers
from braincog_transformers import UserError, cli, list_models
from braincog_transformers.models import describe


def test_filters():
    assert list_models("spikformer_8_*") == ["spikformer_8_384", "spikformer_8_512", "spikformer_8_768"]
    cml = list_models(family="CML-Spikformer", dataset="cifar100")
    assert cml == [f"spikformer_cml_{size}_cifar" for size in ("2_384", "4_256", "4_384")]
    assert list_models(dataset="dvsc10") == list_models(dataset="cifar10dvs")
    assert "spikformer_2_256_dvs" in list_models(dataset="dvsg", kind="event")
    assert not set(list_models("spikformer*", kind="event")) & set(list_models(kind="image"))
    assert set().union(*(list_models(kind=kind) for kind in ("event", "image", "sequence"))) == set(list_models())
    assert set(list_models(family="Spikformer", year=2023)) >= {"spikformer_8_512", "spikformer"}
    assert list_models(year=1999) == []
    with pytest.raises(UserError, match="did you mean event"):
        list_models(kind="evnt")


def test_description():
    (info,) = describe("spikformer_2_256_dvs")
    assert (info.family, info.year, info.step, info.input_size) == ("Spikformer", 2023, 16, (2, 128, 128))
    assert info.published == ("CIFAR10-DVS 80.9", "DVS128 Gesture 98.3")
    tagged = {info.name: info.parameters for info in describe("spikformer_2_256_dvs", by_tag=True)}
    assert tagged == {"spikformer_2_256_dvs.cifar10dvs": 2_566_666, "spikformer_2_256_dvs.gesture": 2_566_923}


def test_every_published_variant_has_a_source_and_readable_results():
    for name in list_models():
        for info in describe(name):
            for note in info.published:
                assert re.fullmatch(r"[\w -]+ \d\d\.\d+( \(.+\))?", note), note
            assert info.ids, name
            assert info.code.count("/") == 4 if info.code else info.status == "reconstruction", name
            assert 2022 < info.year < 2030


def test_names_are_functions_of_their_module():
    from braincog_transformers.models import spikformer

    assert spikformer.spikformer_digits().num_classes == 10
    assert "Spikformer(" in spikformer.spikformer_digits.__doc__
    assert braincog_transformers.list_models("spikformer_digits") == ["spikformer_digits"]


def test_a_reconstruction_says_so(monkeypatch, capsys):
    monkeypatch.setattr(braincog_transformers.models.Spikformer, "status", "reconstruction")
    (info,) = describe("spikformer_digits")
    assert info.status == "reconstruction"
    assert cli.main(["--list-models", "spikformer_digits"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert row[head.index("status") :].startswith("reconstruction")
