"""Pictures hold the data they are given, are written as PNG and SVG, and change nothing of the user's matplotlib."""

import matplotlib as mpl
import numpy as np
import pytest

from braincog_transformers.analysis.energy import EnergyRow
from braincog_transformers.analysis.firing import Row
from braincog_transformers.analysis.pictures import plots
from braincog_transformers.analysis.pictures.classes import plot_confusion, plot_points
from braincog_transformers.analysis.pictures.maps import event_image, image_for_display, plot_images, plot_spike_maps
from braincog_transformers.errors import UserError

ROWS = [Row("stem.lif", 0.25, (0.2, 0.3), 100, 0.0, 8), Row("block.lif", 0.1, (0.0, 0.2), 300, 0.5, 8)]


def pixels(path):
    """Read a PNG back, `(H, W, 4)` in [0, 1]."""
    from matplotlib.image import imread

    return imread(path)


def test_curves_show_loss_accuracy_and_learning_rate(tmp_path):
    rows = [
        {"epoch": str(e), "train_loss": f"{2 / (e + 1)}", "eval_loss": "nan", "eval_top1": 50 + e, "lr": 0.1}
        for e in range(5)
    ]
    path = plots.training_curves(rows, tmp_path / "new" / "curves.png")
    assert pixels(path).std() > 0.05
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_firing_rates_get_a_panel_of_their_own_when_they_were_measured(tmp_path):
    row = {"epoch": 0, "train_loss": 1.0, "test_top1": 50.0, "ema_top1": 40.0, "lr": 0.1}
    without = pixels(plots.training_curves([row], tmp_path / "a.png"))
    with_rates = pixels(plots.training_curves([{**row, "firing_rate": 0.2}], tmp_path / "b.png"))
    assert with_rates.shape[1] > 1.2 * without.shape[1]


def test_curves_of_an_empty_run_are_still_a_picture(tmp_path):
    assert plots.training_curves([], tmp_path / "curves.png").stat().st_size > 1000


def test_the_best_epoch_is_marked():
    ax = plots.new_axes()
    plots._draw_curve(
        ax, [{"epoch": 0, "eval_top1": 10}, {"epoch": 1, "eval_top1": 30}, {"eval_top1": ""}], "eval_top1"
    )
    assert ax.lines[0].get_xydata().tolist() == [[2.0, 30.0]]  # counted from 1
    assert ax.lines[1].get_label() == "eval top1 (best 30.00)"


def test_raster_keeps_every_neuron_of_a_small_layer_in_its_place():
    spikes = np.array([[1, 0, 0], [0, 0, 1]])
    ax = plots.plot_raster(spikes, title="lif")
    assert np.array_equal(ax.images[0].get_array(), spikes.T)
    assert ax.get_title(loc="left") == "lif"


def test_raster_thins_out_a_large_layer():
    assert plots.plot_raster(np.zeros((4, 16, 10, 10)), neurons=50).images[0].get_array().shape == (50, 4)


def test_rate_bars_are_the_rates():
    ax = plots.plot_rates(ROWS)
    assert [bar.get_width() for bar in ax.patches] == [0.25, 0.1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["stem.lif", "block.lif"]
    assert ax.get_title(loc="left") == "all: 0.138"


def test_rates_per_step_leave_missing_steps_empty():
    rates = plots.plot_rates_per_step([*ROWS, Row("once", 1.0, (1.0,), 1, 0.0, 8)]).images[0].get_array()
    assert rates[:2].tolist() == [[0.2, 0.3], [0.0, 0.2]]
    assert np.isnan(np.ma.filled(rates, np.nan)[2, 1])


def test_spike_maps_show_the_input_above_each_layer(tmp_path):
    maps = {"a": np.random.default_rng(0).random((12, 4, 4)), "b": np.zeros((12, 2, 2))}
    figure = plot_spike_maps([np.zeros((8, 8))] * 12, maps)
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_ylabel() for ax in panels if ax.get_ylabel()] == ["input", "a", "b"]
    assert panels[0].get_title() == "step 1"
    assert plots.save(figure, tmp_path / "maps.png").exists()


def test_no_membrane_bar_crosses_the_threshold():
    ax = plots.plot_membrane(np.linspace(-1, 0.7, 1000), threshold=0.5)
    edges = ax.patches[0].get_xy()[:, 0]
    assert min(abs(edge - 0.5) for edge in edges) < 1e-5
    assert ax.lines[0].get_xdata()[0] == 0.5
    assert ax.texts[0].get_text() == "0.5"


def test_what_fired_is_written_beside_the_threshold():
    ax = plots.plot_membrane(np.linspace(-1, 0.7, 1000), threshold=0.25, fired=0.1234)
    assert ax.texts[0].get_text() == "0.25\n12.3% fired"


def test_constant_membranes_are_drawn():
    assert plots.plot_membrane(np.zeros(10), threshold=0.0).patches


def test_confusion_names_its_accuracy():
    ax = plot_confusion(np.array([[8, 2], [1, 9]]), ["cat", "dog"])
    assert ax.get_title(loc="left") == "17 of 20 right (85.00%)"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]


@pytest.mark.parametrize("classes", [3, 15, 40])
def test_points_have_a_legend_for_few_classes_only(classes):
    labels, points = np.arange(classes), np.random.default_rng(0).random((classes, 2))
    assert (plot_points(points, labels).get_legend() is not None) == (classes <= 20)
    assert plot_points(points, labels, legend=False).get_legend() is None


def test_an_svg_of_many_points_stays_small(tmp_path):
    points, labels = np.random.default_rng(0).random((2000, 2)), np.arange(2000) % 10
    path = plots.save(plot_points(points, labels), tmp_path / "points.png")
    assert path.with_suffix(".svg").stat().st_size < 4e5


def test_events_are_red_where_brighter_and_blue_where_darker():
    frame = np.zeros((2, 2, 2))
    frame[1, 0, 0] = frame[0, 1, 1] = 3
    on, off, none = (event_image(frame)[place] for place in [(0, 0), (1, 1), (0, 1)])
    assert on[0] > on[2]
    assert off[2] > off[0]
    assert none.tolist() == [1, 1, 1]


def test_a_frame_without_events_is_white():
    assert (event_image(np.zeros((2, 3, 3))) == 1).all()


def test_normalisation_is_undone_for_display():
    image = (np.full((3, 2, 2), 0.75) - 0.5) / 0.25
    assert np.allclose(image_for_display(image, mean=(0.5,) * 3, std=(0.25,) * 3), 0.75)
    assert image_for_display(image[:1]).shape == (2, 2)


def test_the_users_settings_and_figures_are_left_alone():
    before = dict(mpl.rcParams)
    plot_images([np.zeros((2, 2))] * 3, ["a", "b", "c"])
    plots.plot_rates(ROWS)
    assert dict(mpl.rcParams) == before


def test_an_axis_of_the_user_is_drawn_into():
    ax = plots.new_axes()
    assert plots.plot_membrane(np.zeros(3), 1.0, ax) is ax


def energy_row(name, mac, ac):
    """Make a row of one layer, in units that give whole mJ."""
    return EnergyRow(name, "conv", "binary", 0.5, 0.0, mac * 1e9, ac * 1e9, 0.0, 0)


def test_energy_bars_are_accumulates_and_then_multiply_accumulates():
    ax = plots.plot_energy([energy_row("a", 0, 3), energy_row("b", 2, 1)], e_mac=5.0, e_ac=1.0)
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0, 3), (0, 1), (3, 0), (1, 10)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.texts] == ["21.4%", "78.6%"]
    assert "5 pJ" in ax.get_legend().get_texts()[1].get_text()


def test_many_layers_are_added_up_by_block():
    names = ["patch_embed.stages.0.conv", "patch_embed.rpe.conv"]
    names += [f"stages.{i}.blocks.{j}.attn.{part}" for i in (0, 1) for j in (0, 1) for part in "qkvp"]
    names += ["stages.1.embed.conv", "head"]
    ax = plots.plot_energy([energy_row(name, 0, 1) for name in names], e_ac=1.0, most=10)
    blocks = ["stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0", "stages.1.blocks.1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["patch_embed", *blocks, "stages.1", "head"]
    assert [bar.get_width() for bar in ax.patches[:7]] == [2, 4, 4, 4, 4, 1, 1]


def test_the_same_picture_is_the_same_svg(tmp_path):
    first, again = (plots.save(plots.plot_rates(ROWS), tmp_path / name / "rates.png") for name in "ab")
    assert first == tmp_path / "a" / "rates.png"
    svg = first.with_suffix(".svg").read_bytes()
    assert svg == again.with_suffix(".svg").read_bytes()
    assert b"<svg" in svg


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "curves.png", tmp_path / "file" / "below" / "curves.png"):
        with pytest.raises(UserError, match=r"^output folder '.*' can't be written \(.*\); name another") as raised:
            plots.training_curves([], path)
        assert "\n" not in str(raised.value)


def test_the_curves_of_a_task_show_its_metric(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure) or path)
    rows = [{"epoch": i, "train_loss": 1.0, "test_abs_rel": value, "lr": 0.1} for i, value in enumerate((3, 1, 2))]
    plots.training_curves(rows, tmp_path / "curves.png", metric="abs_rel", decreasing=True)
    panels = {ax.get_title(loc="left") or ax.get_title(): ax for ax in drawn[0].axes}
    assert list(panels) == ["loss", "abs rel", "learning rate"]
    assert panels["abs rel"].get_legend().get_texts()[0].get_text() == "test abs rel (best 1)"
