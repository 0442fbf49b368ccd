"""Pictures read pixel by pixel: order, colours, loading, and what networks have to do with them."""

import numpy as np
import pytest
import torch
from picture_writers import write_cifar, write_mnist
from torch import nn

from braincog_transformers.cli import resolve
from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.loading.loader import make_loader
from braincog_transformers.data.registry import DATASETS
from braincog_transformers.data.sequences.pixels import pixel_order
from braincog_transformers.errors import UserError
from braincog_transformers.training.network import find_shape

FIRST = [319, 576, 323, 107, 355, 716]


def test_the_pixels_of_a_digit_come_row_after_row(tmp_path):
    pixels = write_mnist(tmp_path / "MNIST" / "raw")
    bundle = build_datasets("smnist", tmp_path)
    sequence, label = bundle.test[2]
    assert (bundle.input_shape, sequence.shape, sequence.dtype, label) == ((784, 1), (784, 1), torch.float32, 2)
    expected = (pixels[2].astype(np.float64) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(sequence[:, 0].view(28, 28), expected, atol=1e-6)


def test_the_permutation_is_one_and_the_published_one(tmp_path):
    write_mnist(tmp_path / "mnist" / "MNIST" / "raw")
    order = pixel_order(DATASETS["psmnist"])
    assert sorted(order) == list(range(784))
    assert order[:6].tolist() == FIRST
    plain, permuted = (build_datasets(name, tmp_path) for name in ("smnist", "psmnist"))
    for side in ("train", "test"):
        for (x, label), (y, same) in zip(getattr(plain, side), getattr(permuted, side), strict=True):
            assert torch.equal(x[order], y)
            assert label == same


def test_a_pixel_of_a_photo_has_three_colours(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    pixels = write_cifar(tmp_path / "cifar-10-batches-py", fine=False)
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    bundle = build_datasets("scifar10", tmp_path)
    sequence, label = bundle.test[1]
    assert (bundle.input_shape, sequence.shape, label) == ((1024, 3), (1024, 3), 4)
    info = DATASETS["scifar10"]
    raw = sequence.double() * torch.tensor(info.std) + torch.tensor(info.mean)
    assert np.array_equal((raw * 255).round().numpy().T.reshape(-1), pixels[1])  # planes of red, green and blue


def test_a_network_learns_from_the_batches_of_the_loader(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    network = nn.RNN(1, 10, batch_first=True)
    loader = make_loader(build_datasets("psmnist", tmp_path).train, batch_size=3, train=True, seed=1)
    for x, target in loader:
        assert x.shape == (3, 784, 1)
        nn.functional.cross_entropy(network(x)[0].mean(1), target).backward()
    assert all(parameter.grad.abs().sum() for parameter in network.parameters())


def test_missing_pictures_are_named_under_the_sequences_name(tmp_path):
    with pytest.raises(UserError, match=r"data set psmnist not found; .*add --download to fetch it"):
        build_datasets("psmnist", tmp_path)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["smnist", "--model", "tim_2_256_shd"],
            "takes sequences of 700 channels, and those of smnist have 1; no network",
        ),
        (["scifar10", "--model", "spikformer"], "takes 3 x 224 x 224, and scifar10 holds sequence data; no network of"),
        (["shd", "--model", "spikformer"], "choose tim_2_256_shd"),
        (
            ["smnist", "--model", "pixel_network", "--step", "10"],
            "--step 10: smnist has one step for each of 784 pixels",
        ),
        (["smnist", "--mean", "0.5"], "--mean: for image data only; smnist holds sequence data"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_networks_and_options_that_do_not_fit_are_refused(argv, message, monkeypatch):
    import timm

    known, own = timm.get_pretrained_cfg, timm.models.PretrainedCfg(input_size=(1, 1, 1))
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: own if name == "pixel_network" else known(name))
    with pytest.raises(UserError) as caught:
        find_shape(resolve(["--dataset", *argv]))
    assert message in str(caught.value)


def test_mean_and_deviation_are_the_sets_own(tmp_path):
    with pytest.raises(UserError, match="smnist has its own mean and deviation; leave out --mean"):
        build_datasets("smnist", tmp_path, mean=(0.5,))
