"""What the command line's looking options write."""

import numpy as np
import pytest
import torch

from braincog_transformers.analysis.embedding import classifier_features, principal_components
from braincog_transformers.analysis.energy import Analysis, EnergyRow
from braincog_transformers.analysis.firing import Row
from braincog_transformers.analysis.pictures import visualize
from braincog_transformers.analysis.recorder import NodeRecord
from braincog_transformers.errors import UserError


def entry(name, *shape):
    """Make a record of random spikes `(T, B, ...)`."""
    spikes = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    return NodeRecord(name, 1.0, [spikes])


def test_maps_follow_space_through_stem_and_tokens_but_not_attention():
    entries = [
        entry("stem", 4, 2, 8, 16, 16),
        entry("pooled", 4, 2, 8, 4, 4),
        entry("tokens", 4, 2, 16, 8),
        entry("channels_first", 4, 2, 8, 16),
        entry("attention", 4, 2, 2, 16, 16),
        entry("head", 4, 2, 10),
    ]
    maps = visualize.spike_maps({e.name: e for e in entries}, (16, 16))
    assert {name: rates.shape[1:] for name, rates in maps.items()} == {
        "stem": (16, 16),
        "pooled": (4, 4),
        "tokens": (4, 4),
        "channels_first": (4, 4),
    }
    assert np.allclose(maps["tokens"][0, 1, 2], entries[2].spikes[0, 0, 6].mean())


def test_visualize_writes_its_pictures(small_net, currents, tmp_path):
    paths = visualize.visualize(small_net(), (currents, torch.tensor([0])), tmp_path / "look")
    assert [path.name for path in paths] == ["spike_raster.png", "firing_rates.png"]
    assert all(path.stat().st_size > 2000 for path in paths)


def test_rates_measured_on_more_data_are_those_drawn(small_net, currents, tmp_path, monkeypatch):
    monkeypatch.setattr(visualize, "firing_rates", None)
    rows = [Row("early", 0.75, (0.75,), 2, 0.0, 1000)]
    assert visualize.visualize(small_net(), currents, tmp_path, rows=rows)[-1].name == "firing_rates.png"


def test_membranes_are_drawn_for_each_layer_with_its_own_threshold(small_net, currents, tmp_path, monkeypatch):
    notes, model, draw = [], small_net(), visualize.plots.plot_membrane
    model.late.set_n_threshold(0.25)
    monkeypatch.setattr(
        visualize.plots, "plot_membrane", lambda *args, **also: notes.append((args[1], also)) or draw(*args)
    )
    assert visualize.draw_membranes(model, currents, tmp_path).name == "membranes.png"
    assert [threshold for threshold, _ in notes] == [pytest.approx(0.9), pytest.approx(0.25)]
    assert notes[0][1] == {"title": "early", "fired": 0.75}


def test_one_step_that_stands_for_all_frames_is_shown_as_their_sum():
    frames = np.zeros((3, 2, 4, 4), np.float32)
    for step in range(3):
        frames[step, 0, step, step] = 1
    (shown,) = visualize.display_steps(frames, 1)
    assert (shown < 1).any(-1).sum() == 3
    assert [(each < 1).any(-1).sum() for each in visualize.display_steps(frames, 3)] == [1, 1, 1]


def test_layers_of_fewer_steps_have_fewer_maps():
    from braincog_transformers.analysis.pictures.maps import plot_spike_maps

    maps = {"stem": np.ones((3, 4, 4)), "block": np.ones((1, 4, 4))}
    figure = plot_spike_maps([np.zeros((4, 4))] * 3, maps)
    assert [len(ax.images) for ax in figure.axes if ax.get_label() != "<colorbar>"].count(1) == 3 + 3 + 1


def test_confusion_counts_true_by_predicted(small_net, tmp_path):
    model = small_net()
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.tensor([0.0, 5.0, 1.0])
    batches = [(torch.rand(3, 2), torch.tensor([0, 1, 1])), (torch.rand(1, 2), torch.tensor([2]))]
    assert visualize.confusion_matrix(model, batches).tolist() == [[0, 1, 0], [0, 2, 0], [0, 1, 0]]
    assert visualize.draw_confusion(model, batches, tmp_path, classes="abc").exists()


def test_features_are_what_the_classifier_sees(small_net, currents):
    batches = [(currents, torch.tensor([2])), (currents, torch.tensor([1]))]
    features, labels = classifier_features(small_net(), batches, limit=1)
    assert features.tolist() == [[0.5, 0.25]]  # the late node's rates
    assert labels.tolist() == [2]


def test_features_of_a_head_that_sees_each_step_are_averaged(small_net, currents):
    model = small_net()
    model.forward = lambda x: model.head(model.early(x.repeat(4, 1))).unflatten(0, (4, -1)).mean(0)
    features, _ = classifier_features(model, [(torch.cat([currents, 0 * currents]), torch.tensor([0, 1]))])
    assert features.tolist() == [[1.0, 0.5], [0.0, 0.0]]


def test_features_are_drawn_and_kept(small_net, tmp_path):
    x, y = torch.rand(12, 2, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    assert visualize.draw_features(small_net(), [(x, y)], tmp_path) == tmp_path / "features.png"
    kept = np.load(tmp_path / "features.npz")
    assert {name: kept[name].shape for name in kept.files} == {
        "features": (12, 2), "labels": (12,), "pca": (12, 2), "tsne": (12, 2)
    }  # fmt: skip
    with pytest.raises(UserError, match="at least three"):
        visualize.draw_features(small_net(), [(x[:2], y[:2])], tmp_path)


def test_features_of_a_network_that_does_not_fire_are_drawn(small_net, tmp_path):
    assert visualize.draw_features(small_net(), [(torch.zeros(12, 2), torch.arange(12) % 3)], tmp_path).exists()


def test_principal_components_keep_distances_and_order_the_axes():
    points = np.array([[0.0, 0.0], [0.0, 6.0], [1.0, 0.0], [1.0, 6.0]])
    found, shares = principal_components(points)
    assert np.allclose(np.abs(found), [[3, 0.5]] * 4)
    assert np.allclose(shares, [36 / 37, 1 / 37])
    found, shares = principal_components(points[:, :1])
    assert np.allclose(found[:, 1], 0)
    assert np.allclose(shares, [1, 0])


@pytest.mark.parametrize("batches", [[], iter(())])
def test_no_data_is_one_line(small_net, batches, tmp_path):
    for draw in (visualize.draw_features, visualize.draw_confusion):
        with pytest.raises(UserError, match="needs at least one batch; got none"):
            draw(small_net(), batches, tmp_path)


def test_energy_is_drawn_with_its_total(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(visualize.plots, "save", lambda figure, path: titles.append(figure.get_suptitle()) or path)
    row = EnergyRow("conv", "conv", "real", 1.0, 0.0, 1e9, 1e9, 5.5, 0)
    analysis = Analysis("spikingformer", [row], samples=1, steps=4, e_mac=4.6, e_ac=0.9, ann_energy=11.0)
    assert visualize.draw_energy(analysis, tmp_path) == tmp_path / "energy.png"
    assert titles == [
        "5.5 mJ in 4 steps, by the spikingformer method\nas an ordinary network: 11 mJ, 2.0 times as much"
    ]


def test_a_network_without_neurons_is_one_line(currents, tmp_path):
    for draw in (visualize.visualize, visualize.draw_membranes):
        with pytest.raises(UserError, match="needs a spiking network"):
            draw(torch.nn.Linear(2, 2), currents, tmp_path)


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (5, 1, 8, 8), (5, 4, 2, 8, 8)], ids=["colour", "grey", "events"])
def test_images_are_drawn_as_the_network_gets_them(shape, tmp_path):
    path = visualize.save_images((torch.rand(shape), torch.eye(5)), tmp_path, name="train", classes="abcde")
    assert path == tmp_path / "train.png"
    assert path.stat().st_size > 2000
