"""Whole runs on DVS128 Gesture and on sequences, through the options of the command line."""

from pathlib import Path

import pytest
import timm
import torch
from braincog.model_zoo.base_module import BaseModule
from matplotlib.image import imread
from torch import nn
from writers import write_gesture, write_shd

from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError
from braincog_transformers.nodes import LIFNode
from braincog_transformers.ops.kernels import fused_neuron
from braincog_transformers.training.distributed import Ranks
from braincog_transformers.training.network import build_network, find_shape
from braincog_transformers.training.run import run

SHORT = ["--epochs", "1", "--warmup-epochs", "0", "--cooldown-epochs", "0", "-b", "3", "--tensorboard-dir", ""]
SHORT += ["--device", "cpu", "--workers", "0", "--step", "2"]
SMALL = ["--dataset", "dvsg", "--model", "spikformer_2_256_dvs", "--event-size", "16"]
SMALL += ["--model-kwargs", "depth=1", "embed_dim=16"]
SPIKES = ["--dataset", "shd", "--model", "sequence_network"]

pytestmark = pytest.mark.filterwarnings("ignore:.*published figures need all of them")


@pytest.fixture(autouse=True)
def _plain_neurons(monkeypatch):
    monkeypatch.setattr(fused_neuron, "compiler_works", lambda _: False)


class SequenceNetwork(BaseModule):
    """Two linear layers around a neuron: `(B, T, 700)` to `(B, K)`, for want of height and width."""

    def __init__(self, num_classes=20, step=4):
        super().__init__(step=step, encode_type="direct", layer_by_layer=True)
        self.num_classes, self.output_steps = num_classes, False
        self.inner = nn.Linear(700, 8)
        self.node = LIFNode(step=step, layer_by_layer=True)
        self.head = nn.Linear(8, num_classes)

    def set_attr(self, name, value):
        for module in (self, self.node):
            setattr(module, name, value)

    def forward(self, x):
        batch, steps, channels = x.shape
        assert (steps, channels) == (self.step, 700)
        folded = self.node(self.inner(x.transpose(0, 1).flatten(0, 1)))
        logits = self.head(folded).view(steps, batch, -1)
        return logits if self.output_steps else logits.mean(0)


@pytest.fixture
def sequence_network(monkeypatch):
    """Let timm build the stand-in under the name `sequence_network`."""
    create, known = timm.create_model, timm.get_pretrained_cfg
    config = timm.models.PretrainedCfg(input_size=(1, 1, 700))
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, **given: SequenceNetwork(**given) if name == "sequence_network" else create(name, **given),
    )
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config if name == "sequence_network" else known(name))


@pytest.fixture
def go(tmp_path):
    def call(*more):
        folders = ["--data-dir", str(tmp_path), "--output", str(tmp_path / "runs")]
        return run(resolve([*SHORT, *folders, *more]))

    return call


def test_trains_on_gestures_with_the_sum_of_the_polarities(go, tmp_path):
    write_gesture(tmp_path, train=("user01_led",), count=600)
    found = go(*SMALL, "--polarity-sum", "--event-augment", "resformer", "--save-images", "--visualize")
    assert 0 <= found["test_top1"] <= 100
    drawn = imread(Path(found["folder"]) / "first_batch.png")[..., :3]
    assert (drawn.min(-1) > 0.9).mean() > 0.5  # events on white, whatever their third channel
    assert (Path(found["folder"]) / "spike_maps.png").is_file()


@pytest.mark.parametrize(("more", "chans"), [((), 2), (("--polarity-sum",), 3), (("--temporal-flatten",), 4),
                                             (("--polarity-sum", "--temporal-flatten"), 6)])  # fmt: skip
def test_the_network_gets_the_channels_of_the_data(more, chans):
    options = resolve([*SHORT, *SMALL, *more])
    shape = find_shape(options)
    network = build_network(options, shape, Ranks(device=torch.device("cpu")), say=print)
    assert network.in_chans == chans


def test_a_run_on_gestures_is_a_function_of_its_seed(go, tmp_path):
    write_gesture(tmp_path, train=("user01_led",), count=600)
    more = ["--event-augment", "resformer", "--polarity-sum", "--event-mix"]
    first, second, other = (go(*SMALL, *more, "--seed", seed) for seed in ("3", "3", "4"))
    assert first["test_loss"] == second["test_loss"] != other["test_loss"]


@pytest.mark.usefixtures("sequence_network")
def test_trains_on_sequences(go, tmp_path):
    write_shd(tmp_path)
    pictures = ["--save-images", "--visualize", "--spike-rate", "--conf-mat", "--tsne", "--mem-dist"]
    found = go(*SPIKES, "--mixup", "0.5", "--mixup-prob", "1", "-b", "2", *pictures)
    assert 0 <= found["test_top1"] <= 100
    written = {path.name for path in Path(found["folder"]).glob("*.png")}
    assert {"first_batch.png", "spike_raster.png", "firing_rates.png", "confusion.png", "features.png"} <= written
    assert "spike_maps.png" not in written
    drawn = imread(Path(found["folder"]) / "first_batch.png")[..., :3]
    assert 0.3 < (drawn.max(-1) < 0.2).mean() < 0.9  # mostly silent channels, as large as a picture


@pytest.mark.usefixtures("sequence_network")
@pytest.mark.parametrize("more", [["--rand-step"], ["--tet-loss"], ["--channels-last"], ["--amp"]], ids=" ".join)
def test_options_of_time_and_layout_take_sequences(go, tmp_path, more):
    write_shd(tmp_path)
    assert 0 <= go(*SPIKES, *more)["test_top1"] <= 100


@pytest.mark.usefixtures("sequence_network")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*SPIKES, "--hflip", "0.5"], "--hflip: needs height and width, and shd holds sequences"),
        ([*SPIKES, "--cutmix", "1", "--mixup-prob", "1"], "--cutmix: needs height and width, and shd holds sequences"),
        ([*SPIKES, "--event-mix", "--event-size", "9"], "--event-size, --event-mix: for event data only; shd holds"),
        ([*SPIKES, "--encode", "rate"], "--encode: for image data only; shd holds sequence data"),
        ([*SPIKES, "--temporal-flatten"], "--temporal-flatten: for event data only; shd holds sequence data"),
        ([*SPIKES, "--polarity-sum"], "--polarity-sum: for event data only; shd holds sequence data"),
        ([*SMALL, "--polarity-sum", "--event-mix", "--cutmix-noise", "0.1"], "no sum; give one of them"),
        ([*SMALL, "--aa", "none"], "--aa: for image data only; dvsg holds event data"),
        (["--dataset", "digits", "--label-order", "text"], "--label-order: for event data only"),
        (
            ["--dataset", "ndigits", "--model", "spikformer_ndigits", "--label-order", "text"],
            "ndigits has one order of labels",
        ),
        (["--dataset", "shd", "--model", "spikformer_2_256_dvs"], "takes 2 x 128 x 128, and shd holds sequence data"),
        (["--dataset", "digits", "--model", "sequence_network"], "takes 1 x 1 x 700, and digits holds image data"),
        (SPIKES, "data set shd not found; looked in"),
        (SMALL, "data set dvsg not found; looked in"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_refused_in_one_line(go, argv, message):
    with pytest.raises(UserError) as caught:
        go(*argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
