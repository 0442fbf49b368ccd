"""Several conversions of one source in one table and one picture."""

from braincog_transformers.analysis.conversion import ConversionRow, format_comparison
from braincog_transformers.analysis.pictures.conversion import plot_comparison


def rows(factor, counted=True):
    ordinary = [ConversionRow(name, None, 90.0, 0.3, energy=0.5 if counted else None) for name in ("source", "limit")]
    spiking = [ConversionRow("spiking", t, factor * t, 1.0, 50.0, factor * t if counted else None) for t in (1, 2, 4)]
    return [*ordinary, *spiking]


def test_a_table_has_two_lines_for_each_method():
    lines = [
        line.split() for line in format_comparison({"sta": rows(2.0), "rate": rows(3.0, False)}, "a note").splitlines()
    ]
    assert lines[1] == ["a", "note"]
    found = [line for line in lines[2:] if set("".join(line)) != {"-"}]
    assert found == [
        ["method", "source", "limit", "T=1", "T=2", "T=4"],
        ["sta", "top-1,", "%", "90.00", "90.00", "2.00", "4.00", "8.00"],
        ["energy,", "mJ", "0.500000", "0.500000", "2.000000", "4.000000", "8.000000"],
        ["rate", "top-1,", "%", "90.00", "90.00", "3.00", "6.00", "12.00"],
        ["energy,", "mJ"],
    ]


def test_a_picture_has_a_curve_for_each_method_and_the_source():
    accuracy, energy = plot_comparison({"sta": rows(2.0), "rate": rows(3.0)}).axes
    for ax in (accuracy, energy):
        curves = {line.get_label(): list(line.get_ydata()) for line in ax.lines if not line.get_label().startswith("_")}
        assert curves["sta"] == [2.0, 4.0, 8.0]
        assert curves["rate"] == [3.0, 6.0, 12.0]
        assert set(curves) == {"sta", "rate", "source"}
    assert [line.get_ydata()[0] for line in accuracy.lines if line.get_linestyle() == ":"] == [90.0, 90.0]
