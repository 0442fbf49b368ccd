"""An image that stands for T equal steps leaves the running statistics that T copies leave."""

import pytest
import torch
from einops import repeat
from torch import distributed, nn

from braincog_transformers.layers import ConvBN
from braincog_transformers.nodes import normalisation
from braincog_transformers.nodes.normalisation import shared_over_steps

T = 4


class _Custom(nn.BatchNorm2d):
    """One whose running variance is of the batch itself, not of what it is drawn from."""

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.running_var.lerp_(x.var(dim=(0, 2, 3), unbiased=True) * 2, 0.3)
                self.num_batches_tracked += len(x)
        return x - self.running_var.view(1, -1, 1, 1)


NORMS = {
    "batch": lambda: nn.BatchNorm2d(3),
    "synchronised": lambda: nn.SyncBatchNorm(3),
    "cumulative": lambda: nn.BatchNorm2d(3, momentum=None),
    "synchronised, cumulative": lambda: nn.SyncBatchNorm(3, momentum=None),
    "untracked": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "no weights": lambda: nn.SyncBatchNorm(3, affine=False),
    "of another class": lambda: _Custom(3),
    "groups": lambda: nn.GroupNorm(3, 3),
    "instances": lambda: nn.InstanceNorm2d(3, track_running_stats=True),
    "none": nn.Identity,
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", NORMS)
def test_statistics_are_those_of_the_copies(kind, training):
    torch.manual_seed(0)
    one, many = (NORMS[kind]().double().train(training) for _ in range(2))
    for _ in range(3):
        x = torch.randn(2, 3, 2, 1).double()  # few values, so that n / (n - 1) matters
        y, expected = shared_over_steps(one, x, T), many(repeat(x, "b c h w -> (t b) c h w", t=T))
        torch.testing.assert_close(y, expected[: len(x)], rtol=1e-12, atol=1e-12)
        for buffer, other in zip(one.buffers(), many.buffers(), strict=True):
            torch.testing.assert_close(buffer, other, rtol=1e-12, atol=1e-12)


def test_a_synchronised_layer_counts_the_values_of_all_processes(monkeypatch):
    """Two processes with 2 and 4 images: what PyTorch's own layer makes of them is told by one with all 6."""

    def all_reduce(count, group):
        assert group is bn.process_group
        count.add_(4 * 2)

    torch.manual_seed(0)
    bn, all_images = nn.SyncBatchNorm(3, process_group="half of them").double(), torch.randn(6, 3, 2, 1).double()
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda group: 2)
    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    assert normalisation._values(bn, all_images[:2]) == 12
    assert normalisation._values(nn.BatchNorm2d(3), all_images[:2]) == 4
    whole, many = nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    many(repeat(all_images, "b c h w -> (t b) c h w", t=T))
    synchronised = lambda x: whole(all_images)[: len(x)]  # noqa: E731 - sees all, as the processes together do
    monkeypatch.setattr(bn, "forward", lambda x: _forward_as(bn, whole, synchronised, x))
    shared_over_steps(bn, all_images[:2], T)
    torch.testing.assert_close(bn.running_var, many.running_var, rtol=1e-12, atol=1e-12)


def _forward_as(bn, whole, run, x):
    whole.running_mean, whole.running_var = bn.running_mean, bn.running_var
    return run(x)


def test_a_layer_with_a_synchronised_normalisation_takes_an_image_for_its_copies():
    torch.manual_seed(0)
    layers = [ConvBN(3, 4), nn.SyncBatchNorm.convert_sync_batchnorm(ConvBN(3, 4))]
    layers[1].load_state_dict(layers[0].state_dict())
    image = torch.randn(2, 3, 4, 4)
    for layer in layers:
        layer(image, copies=T)
    torch.testing.assert_close(layers[1].bn.running_var, layers[0].bn.running_var, rtol=1e-6, atol=1e-7)
