"""Pictures hold the data they are given, are written as PNG, and change nothing of the user's matplotlib."""

import matplotlib as mpl
import numpy as np
import pytest

from braincog_transformers.analysis import plots
from braincog_transformers.analysis.firing import Row

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
    assert ax.lines[0].get_xydata().tolist() == [[1.0, 30.0]]
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
    figure = plots.plot_spike_maps([np.zeros((8, 8))] * 12, maps)
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_ylabel() for ax in panels if ax.get_ylabel()] == ["input", "a", "b"]
    assert panels[0].get_title() == "step 1"
    assert plots.save(figure, tmp_path / "maps.png").exists()


def test_no_membrane_bar_crosses_the_threshold():
    ax = plots.plot_membrane(np.linspace(-1, 0.7, 1000), threshold=0.5)
    edges = [bar.get_x() for bar in ax.patches]
    assert min(abs(edge - 0.5) for edge in edges) < 1e-5
    assert ax.lines[0].get_xdata()[0] == 0.5


def test_constant_membranes_are_drawn():
    assert plots.plot_membrane(np.zeros(10), threshold=0.0).patches


def test_confusion_names_its_accuracy():
    ax = plots.plot_confusion(np.array([[8, 2], [1, 9]]), ["cat", "dog"])
    assert ax.get_title(loc="left") == "17 of 20 right (85.00%)"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]


@pytest.mark.parametrize("classes", [3, 15, 40])
def test_tsne_has_a_legend_for_few_classes_only(classes):
    labels = np.arange(classes)
    legend = plots.plot_tsne(np.random.default_rng(0).random((classes, 2)), labels).get_legend()
    assert (legend is not None) == (classes <= 20)


def test_events_are_red_where_brighter_and_blue_where_darker():
    frame = np.zeros((2, 2, 2))
    frame[1, 0, 0] = frame[0, 1, 1] = 3
    on, off, none = (plots.event_image(frame)[place] for place in [(0, 0), (1, 1), (0, 1)])
    assert on[0] > on[2]
    assert off[2] > off[0]
    assert none.tolist() == [1, 1, 1]


def test_a_frame_without_events_is_white():
    assert (plots.event_image(np.zeros((2, 3, 3))) == 1).all()


def test_normalisation_is_undone_for_display():
    image = (np.full((3, 2, 2), 0.75) - 0.5) / 0.25
    assert np.allclose(plots.image_for_display(image, mean=(0.5,) * 3, std=(0.25,) * 3), 0.75)
    assert plots.image_for_display(image[:1]).shape == (2, 2)


def test_the_users_settings_and_figures_are_left_alone():
    before = dict(mpl.rcParams)
    plots.plot_images([np.zeros((2, 2))] * 3, ["a", "b", "c"])
    plots.plot_rates(ROWS)
    assert dict(mpl.rcParams) == before


def test_an_axis_of_the_user_is_drawn_into():
    ax = plots.new_axes()
    assert plots.plot_membrane(np.zeros(3), 1.0, ax) is ax
