"""A block adds two branches; checkpointed, it has the same gradients and leaves the same statistics."""

import copy

import torch
from torch import nn

from braincog_transformers.layers import Block, checkpoint_module


class Tripled(nn.Module):
    def forward(self, x):
        return 3 * x


def test_each_branch_reads_the_stream_and_is_dropped_by_itself():
    attn, mlp = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
    x = torch.randn(6, 5, 4).double()
    block = Block(attn, mlp, Tripled())
    stream = x + 3 * attn(x)
    torch.testing.assert_close(block(x), stream + 3 * mlp(stream))


def test_a_checkpointed_module_has_the_gradients_and_statistics_of_one_pass():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5)).double()
    again, x = copy.deepcopy(plain), torch.randn(6, 4).double()
    found = []
    for module, run in ((plain, plain), (again, lambda x: checkpoint_module(again, x))):
        torch.manual_seed(1)
        own = x.clone().requires_grad_()
        for _ in range(2):
            run(own).square().sum().backward()
        found.append([own.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected)
    assert again[1].num_batches_tracked == 2
