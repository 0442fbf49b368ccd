"""Labels, losses, figures and augmentation of depth are those of the official code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from braincog_transformers.runtime.batch import Batch
from braincog_transformers.tasks.depth.frames import centre_crop, flip
from braincog_transformers.tasks.depth.labels import to_label, to_metres
from braincog_transformers.tasks.depth.losses import DepthLoss, gradient_loss, scale_invariant_loss
from braincog_transformers.tasks.depth.metrics import CUTOFFS, frame_figures

HERE = Path(__file__).parents[1] / "golden"
OFFICIAL = {
    "abs_rel": "abs_rel_diff", "sq_rel": "squ_rel_diff", "rmse": "RMS_linear", "rmse_log": "RMS_log",
    "si_log": "SILog", "mean_error": "mean_depth_error", "median_difference": "median_diff",
    "delta1": "threshold_delta_1.25", "delta2": "threshold_delta_1.25^2", "delta3": "threshold_delta_1.25^3",
}  # fmt: skip


def official_figures(file):
    """Return the official figures by official name; the small vector has them in their order."""
    if "eval_metrics" in file.metadata():
        return json.loads(file.metadata()["eval_metrics"])
    order = ("abs_rel", "sq_rel", "rmse", "rmse_log", "si_log", "mean_error", "median_difference")
    names = [OFFICIAL[name] for name in (*order, "delta1", "delta2", "delta3")]
    names = [f"_{near}{name}" for near in ("", *(f"{metres}_" for metres in CUTOFFS)) for name in names]
    return dict(zip(names, file.get_tensor("eval_metrics").tolist(), strict=True))


@pytest.fixture(scope="module", params=["spike_transformer_depth_small", "spike_transformer_depth"])
def vector(request):
    path = request.config.getoption("--golden-dir") / f"{request.param}.safetensors"
    path = path if path.is_file() else HERE / path.name
    if not path.is_file():
        pytest.skip("not in --golden-dir")
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith(("loss.", "logits_", "flip."))]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names} | {"figures": official_figures(file)}


def labels(vector):
    return to_label(vector["loss.depth_metres"].double())


def test_labels_and_losses(vector):
    label, prediction = labels(vector), vector["logits_train"]
    if "loss.target" in vector:
        assert torch.equal(label.isnan(), vector["loss.target"].isnan())
        assert (label - vector["loss.target"]).nan_to_num().abs().max() < 1e-12
    error = prediction - label
    assert scale_invariant_loss(error).item() == pytest.approx(vector["loss.si"].item(), rel=1e-12)
    assert gradient_loss(error).item() == pytest.approx(vector["loss.grad"].item(), rel=1e-12)
    total = DepthLoss()(prediction, Batch(depth=label, index=torch.arange(2)))
    assert total.item() == pytest.approx(vector["loss.total"].item(), rel=1e-12)
    if "loss.si_lambda_half" in vector:
        assert scale_invariant_loss(error, 0.5).item() == pytest.approx(vector["loss.si_lambda_half"].item(), rel=1e-12)


def test_every_official_figure_is_met(vector):
    truth, predicted = (to_metres(one).numpy() for one in (labels(vector).nan_to_num(0.5), vector["logits_train"]))
    frames = [frame_figures(*pair) for pair in zip(truth[:, 0], predicted[:, 0], strict=True)]
    found = {name: np.mean([frame[name] for frame in frames]) for name in frames[0]}
    expected = vector["figures"]
    assert len(found) == len(expected) == 70
    for name, official in OFFICIAL.items():
        for metres in ("", *CUTOFFS):
            ours, theirs = (f"{name}_{metres}m", f"_{metres}_{official}") if metres else (name, f"_{official}")
            assert found[ours] == pytest.approx(expected[theirs], rel=1e-9), ours


def test_flips_are_resampled_as_in_the_official_code(vector):
    if "flip.kept" not in vector:
        pytest.skip("not in this vector")
    depth = vector["loss.depth_metres"][0, :, :8, :12].float()
    for flipped, name in ((False, "flip.kept"), (True, "flip.flipped")):
        ours = flip(depth, flipped)
        assert torch.equal(ours.isnan(), vector[name].isnan())
        assert torch.allclose(ours.nan_to_num(), vector[name].nan_to_num(), rtol=1e-6)
    assert flip(depth, False).isnan().sum() > depth.isnan().sum()  # NaN spreads


def test_labels_go_there_and_back():
    metres = torch.tensor([3.4, 10.0, 999.0, 1000.0, 5000.0, 1.0, 0.0, torch.nan, torch.inf])
    back = to_metres(to_label(metres))
    assert torch.allclose(back[:4], metres[:4], rtol=1e-5)
    assert back[4] == back[8] == 1000
    assert torch.allclose(back[5:7], torch.tensor(1000 * np.exp(-5.7), dtype=torch.float32))
    assert back[7].isnan()


def test_the_loss_does_not_see_an_offset_with_lambda_1_and_sees_it_with_less():
    torch.manual_seed(0)
    output, label = torch.rand(2, 1, 16, 24), torch.rand(2, 1, 16, 24)
    full, half = DepthLoss(), DepthLoss(si_lambda=0.5)
    assert full(output + 0.3, label).item() == pytest.approx(full(output, label).item(), rel=1e-4)
    assert half(output + 0.9, label) > half(output, label) + 0.01


def test_pixels_without_a_label_have_no_gradient_and_nothing_known_costs_nothing():
    label = torch.rand(2, 1, 16, 16)
    label[0, 0, :4] = torch.nan
    output = torch.rand(2, 1, 16, 16, requires_grad=True)
    loss = DepthLoss()(output, label)
    loss.backward()
    assert loss.isfinite()
    assert output.grad.isfinite().all()
    assert (output.grad[0, 0, :4] == 0).all()
    assert (output.grad[0, 0, 4:] != 0).any()
    output.grad = None
    DepthLoss()(output, torch.full_like(label, torch.nan)).backward()
    assert (output.grad == 0).all()


def test_a_loss_under_autocast_is_that_of_32_bits():
    torch.manual_seed(0)
    output, label = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)
    assert isinstance(DepthLoss(), nn.Module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert DepthLoss()(output, label).item() == DepthLoss()(output, label).float().item()
        rounded = DepthLoss()(output.bfloat16(), label)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(DepthLoss()(output.bfloat16().float(), label).item(), rel=1e-6)


def test_a_perfect_prediction_and_pixels_that_are_not_known():
    truth = np.array([[5.0, 20.0], [np.nan, 300.0]])
    found = frame_figures(truth, np.array([[5.0, 20.0], [9.0, 300.0]]))
    assert found["abs_rel"] == found["rmse"] == found["si_log"] == 0
    assert found["delta1"] == found["delta1_10m"] == 1
    assert frame_figures(np.full((2, 2), np.nan), np.ones((2, 2))) == {}
    far = frame_figures(np.full((2, 2), 90.0), np.full((2, 2), 45.0))
    assert far["abs_rel"] == pytest.approx(0.5)
    assert far["sq_rel"] == pytest.approx(0.25)  # by the square of the depth, as coded
    assert (far["delta1"], far["delta3"]) == (0, 0)
    assert "abs_rel_80m" not in far
    assert "abs_rel_250m" in far


def test_of_two_middles_the_crop_takes_the_even_one():
    x = torch.arange(7.0).expand(1, 4, 7)
    assert centre_crop(x, (2, 2))[0, 0].tolist() == [2, 3]
    assert centre_crop(torch.arange(5.0).expand(1, 4, 5), (4, 2))[0, 0].tolist() == [2, 3]
