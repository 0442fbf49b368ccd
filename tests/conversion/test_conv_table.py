"""The table of a conversion: its lines, its files, its picture, and its section in a report."""

import csv
import json

import pytest

from braincog_transformers.analysis.conversion import (
    ConversionRow,
    format_conversion,
    steps_to_show,
    write_conversion,
)
from braincog_transformers.analysis.pictures.conversion import draw_conversion, plot_conversion
from braincog_transformers.errors import UserError
from braincog_transformers.report import write_report

ROWS = [
    ConversionRow("source", None, 90.0, 0.3, None, 2e-3),
    ConversionRow("limit", None, 88.0, 0.35, None, 2e-3),
    ConversionRow("spiking", 1, 20.5, 2.1, 21.0, 1e-4),
    ConversionRow("spiking", 2, 87.25, 0.4, 99.0, 2e-4),
]
ABOUT = {"method": "qcfs", "paper": "Nobody, Nowhere 2026", "options": {"levels": 4}, "model": "vit_tiny_patch16_224"}


@pytest.mark.parametrize(
    ("last", "steps"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (20, [1, 2, 4, 8, 16, 20])]
)
def test_steps_double_up_to_t(last, steps):
    assert steps_to_show(last) == steps


def test_the_table_has_a_line_for_each_network_and_t():
    lines = format_conversion(ROWS, "qcfs", "energy by guess").splitlines()
    assert lines[:2] == ["conversion by qcfs; agreement: the same answer as the limit", "energy by guess"]
    assert [line.split() for line in lines[5:9]] == [
        ["source", "90.00", "0.3000", "0.002000"],
        ["limit", "88.00", "0.3500", "0.002000"],
        ["spiking", "1", "20.50", "2.1000", "21.00", "0.000100"],
        ["spiking", "2", "87.25", "0.4000", "99.00", "0.000200"],
    ]


def test_the_files_hold_the_rows_and_what_was_converted(tmp_path):
    table, data = write_conversion(ROWS, ABOUT, tmp_path)
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "network": "source",
        "step": "",
        "top1": "90.0",
        "loss": "0.3",
        "agreement": "",
        "energy": "0.002",
    }
    found = json.loads(data.read_text())
    assert found["options"] == {"levels": 4}
    assert found["rows"][3] == vars(ROWS[3])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        write_conversion(ROWS, ABOUT, tmp_path / "file" / "x")


def test_the_picture_shows_accuracy_and_energy_over_t_with_the_levels_of_the_others(tmp_path):
    assert draw_conversion(ROWS, tmp_path) == tmp_path / "conversion.png"
    assert (tmp_path / "conversion.svg").stat().st_size > 1000
    accuracy, energy = plot_conversion(ROWS).axes
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == [
        "spiking", "same answer as the limit", "source 90.00", "limit 88.00"
    ]  # fmt: skip
    assert list(accuracy.lines[0].get_xdata()) == [1, 2]
    assert list(energy.lines[0].get_ydata()) == [1e-4, 2e-4]
    (alone,) = plot_conversion(
        [ConversionRow("limit", None, 88.0, 0.35), ConversionRow("spiking", 1, 20.5, 2.1, 21.0)]
    ).axes
    assert alone.get_title(loc="left") == "accuracy (%)"


def page(folder):
    return write_report([folder]).read_text()


def test_a_report_shows_the_table_and_charts_over_t(tmp_path):
    write_conversion(ROWS, ABOUT, tmp_path)
    text = page(tmp_path)
    assert '<section id="conversion" class="card"><h2>Conversion</h2>' in text
    assert "<title>spiking, T 2: 87.25</title>" in text
    assert "<title>source, T 1: 90.00</title>" in text
    assert 'aria-label="energy estimate, µJ by T"' in text
    assert "Nobody, Nowhere 2026" in text
    assert "levels" in text


@pytest.mark.parametrize("rows", [[], [{}], [{"network": 3, "step": "x", "top1": None, "energy": []}]], ids=str)
def test_a_report_of_odd_rows_is_written_all_the_same(tmp_path, rows):
    (tmp_path / "conversion.json").write_text(json.dumps({"rows": rows, "options": 4, "method": ["<b>"]}))
    assert "<h2>Conversion</h2>" in page(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "conversion.json").write_text('{"rows": 3}')
    with pytest.raises(UserError, match=r"conversion\.json is damaged \(rows must be a list of mappings\)"):
        page(tmp_path)


def test_other_runs_have_no_such_section(tmp_path):
    (tmp_path / "args.yaml").write_text("model: x\n")
    assert "<h2>Conversion</h2>" not in page(tmp_path)
