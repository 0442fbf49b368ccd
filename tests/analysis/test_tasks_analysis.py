"""Networks of tasks: inputs and outputs of several tensors, parts that do not spike, detectors, T from the input."""

import warnings

import pytest
import timm
import torch
from braincog.base.node.node import BaseNode
from torch import nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from braincog_transformers import LIFNode
from braincog_transformers.analysis import energy
from braincog_transformers.analysis.attention_maps import attention_maps
from braincog_transformers.analysis.audit import audit, format_audit
from braincog_transformers.analysis.firing import firing_rates
from braincog_transformers.analysis.operations import count_operations
from braincog_transformers.analysis.pictures.diagram import draw_architecture
from braincog_transformers.analysis.pictures.visualize import save_images, visualize
from braincog_transformers.analysis.recorder import is_spiking, outputs, pictured, record
from braincog_transformers.errors import UserError
from braincog_transformers.runtime.batch import Batch
from braincog_transformers.tasks.backbone import build_backbone
from braincog_transformers.tasks.segmentation.network import SegmentationNetwork
from braincog_transformers.tasks.segmentation.settings import SegmentationSettings


class Pair(nn.Module):
    """Two pictures of a sample, one of which spikes over T steps; the other is read once, in windows."""

    def __init__(self, step=4):
        super().__init__()
        self.step = step
        self.spiking = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), LIFNode(step=step, layer_by_layer=True))
        self.plain = nn.Sequential(nn.Sequential(nn.Linear(4, 5)))

    def forward(self, x):
        spikes = self.spiking(x.first.transpose(0, 1).flatten(0, 1)).unflatten(0, (self.step, -1))
        windows = self.plain(x.second.flatten(0, 1))  # (B*windows, n, 4)
        return Batch(a=spikes.mean((0, 2)), b=windows.unflatten(0, (len(x), -1)).mean((1, 2)))


def pair(samples, step=4):
    return Batch(first=torch.rand(samples, step, 2, 8, 8) * 3, second=torch.rand(samples, 8, 6, 4))


class FromInput(nn.Module):
    """T follows from the input, and there is no attribute of that name."""

    def __init__(self):
        super().__init__()
        self.conv, self.node = nn.Conv2d(2, 3, 3), LIFNode(step=1, layer_by_layer=True)

    def forward(self, x):
        self.node.step = x.shape[1]
        return {"out": self.node(self.conv(x.transpose(0, 1).flatten(0, 1)))}


class Backbone(nn.Module):
    """A spiking convolution with one map, as a detector reads it."""

    out_channels = 8

    def __init__(self):
        super().__init__()
        self.conv, self.node = nn.Conv2d(3, 8, 3, stride=4, padding=1), LIFNode(step=1, layer_by_layer=True)

    def forward(self, x):
        return self.node(self.conv(x) * 5)


class Detecting(nn.Module):
    def __init__(self, kind):
        super().__init__()
        cls = {"faster": FasterRCNN, "retina": RetinaNet}[kind]
        further = {"box_score_thresh": 0.0} if kind == "faster" else {"score_thresh": 0.0}
        self.model = cls(
            Backbone(), num_classes=3, min_size=64, max_size=64, rpn_anchor_generator=AnchorGenerator(((8, 16),)),
            **further,
        ) if kind == "faster" else cls(
            Backbone(), num_classes=3, min_size=64, max_size=64,
            anchor_generator=AnchorGenerator(((8, 16),), ((0.5, 1.0, 2.0),)), **further,
        )  # fmt: skip

    def forward(self, x, target=None):
        return self.model(list(x.unbind()))


def segmenter():
    given = {"embed_dims": (16, 32, 48, 64), "depths": (1, 1), "num_heads": 4, "step": 2}

    def create(**further):
        return timm.create_model("sdt_v2_15m", in_chans=3, num_classes=0, **given, **further)

    return SegmentationNetwork(build_backbone(create, "mean", (64, 64)), 5, SegmentationSettings(channels=16))


@pytest.fixture(autouse=True)
def _strict():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that the count differs from PyTorch's
        yield


def rows_of(counted):
    return {row.name: row for row in counted.rows}


def test_a_batch_is_sliced_by_samples():
    batch = pair(3)
    part = batch[:2]
    assert len(part) == 2
    assert part.second.equal(batch["second"][:2])


def test_several_tensors_are_rated_and_counted():
    network = Pair().eval()
    data = [(pair(3), Batch(t=torch.zeros(3))), pair(2), (pair(0), None)]
    (row,) = firing_rates(network, data)
    assert (row.samples, row.neurons, len(row.per_step)) == (5, 3 * 64, 4)
    counted = count_operations(network, data)
    assert counted.samples == 5
    assert counted.events
    found = rows_of(counted)
    assert found["spiking.0"].total("macs") == 5 * 4 * 64 * 3 * 18
    assert found["plain.0.0"].total("macs") == 5 * 8 * 6 * 20
    assert [len(output) for output, _ in outputs(network, data)] == [3, 2]


def test_an_ordinary_part_beside_a_spiking_one_counts_once():
    """Eight windows of a sample are no eight steps of it."""
    network = Pair().eval()
    found = energy.analyze(network, [pair(2)], e_mac=1.0)
    assert found.ann_energy == pytest.approx((64 * 3 * 18 + 8 * 6 * 20) / 1e9)


def test_pictures_of_several_tensors(tmp_path):
    network = Pair().eval()
    batch = pair(2)
    assert pictured(batch) is batch.second  # the last one laid out in space
    assert pictured(Batch(x=torch.ones(2, 2, 5, 3, 4, 4))).eq(2 * torch.ones(2, 5, 3, 4, 4)).all()
    with record(network) as records:
        network(batch)
    assert records["spiking.1"].spikes.shape == (4, 2, 3, 8, 8)
    names = {path.name for path in visualize(network, (batch, None), tmp_path)}
    assert names == {"spike_raster.png", "firing_rates.png"}
    assert attention_maps(network, batch) == []
    assert save_images((Batch(x=torch.rand(2, 3, 8, 8)), batch), tmp_path).exists()


def test_steps_that_follow_from_the_input():
    network = FromInput().eval()
    x = torch.rand(3, 5, 2, 8, 8) * 4
    (row,) = firing_rates(network, [x])
    assert len(row.per_step) == 5
    counted = count_operations(network, [x])
    assert counted.steps == 5
    assert rows_of(counted)["conv"].total("rows") == 15


def test_a_network_that_does_not_spike():
    layers = nn.Conv3d(1, 2, 3, bias=False), nn.ConvTranspose2d(2, 3, 2, stride=2, bias=False)
    network = nn.Sequential(layers[0], nn.ReLU(), nn.Flatten(2, 3), layers[1])
    x = torch.rand(3, 1, 6, 6, 6)
    assert not is_spiking(network)
    assert firing_rates(network, [x]) == []
    found = audit(network, [x])
    assert not found.spike_driven
    assert "not spike-driven, it has no spiking neuron" in format_audit(found)
    analysis = energy.analyze(network, [x], e_mac=1.0)
    macs = 4 * 4 * 4 * 2 * 27 + 2 * 16 * 4 * 3 * 4
    assert analysis.mac == macs
    assert analysis.energy == pytest.approx(macs / 1e9)


@pytest.mark.parametrize("kind", ["faster", "retina"])
def test_detectors(kind):
    network = Detecting(kind).eval()
    x = torch.rand(4, 3, 64, 64)
    data = [(x[:3], Batch(boxes=torch.zeros(3, 1, 4))), (x[3:], None)]
    assert [row.samples for row in firing_rates(network, data)] == [4]
    counted = count_operations(network, data)
    names = rows_of(counted)
    assert names["model.backbone.conv"].total("rows") == 4
    if kind == "faster":
        assert {"model.roi_heads.box_head.fc6", "model.rpn.head.cls_logits"} <= names.keys()
        assert "torchvision.nms" in {operator.name for operator in counted.analog}
    assert isinstance(network(x), list)
    assert energy.charge(counted, energy.EnergyRules()).energy > 0
    assert not audit(network, data).spike_driven


def test_segmentation_on_a_network_of_the_zoo():
    network = segmenter().eval()
    counted = count_operations(network, [torch.rand(3, 3, 64, 64)])
    assert counted.steps == 2
    assert counted.first_calls == 1  # an image is repeated at every step
    nodes = [module for module in network.modules() if isinstance(module, BaseNode)]
    # the neuron in front of the classifier is not called
    assert len(firing_rates(network, [torch.rand(2, 3, 64, 64)])) == len(nodes) - 1


TASK_NAMES = ["stnet_small", "spike_transformer_depth_small", "spiking_pose_transformer_small"]


@pytest.mark.parametrize("name", TASK_NAMES)
def test_networks_of_papers(name):
    network = timm.create_model(name).eval()
    if name == "stnet_small":
        frame = (2, 2, network.step, network.in_chans)
        x = Batch(template=torch.rand(*frame, *[network.z_size] * 2), search=torch.rand(*frame, *[network.x_size] * 2))
    elif "depth" in name:
        x = torch.rand(2, network.in_chans, 64, 64).round()
    else:
        x = torch.rand(2, 3, network.in_chans, *network.img_size)
    rows, found = firing_rates(network, [x]), audit(network, [x])
    assert bool(rows) == found.spiking == is_spiking(network)
    assert not found.spike_driven
    assert energy.analyze(network, [x]).energy > 0
    assert energy.analyze(network, [x], method="sdt").energy > 0


def test_what_is_no_tensor_is_refused():
    with pytest.raises(UserError, match="an input is a tensor or a Batch; got str"):
        pictured("x")


TASK_NAMES = ["stnet_small", "spike_transformer_depth_small", "spiking_pose_transformer_small"]


@pytest.mark.parametrize("name", TASK_NAMES)
def test_a_diagram_of_a_network_that_has_none_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"no diagram of \w+: it does not take one picture"):
        draw_architecture(timm.create_model(name), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
