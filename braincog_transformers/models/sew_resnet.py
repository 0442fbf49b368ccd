"""SEW-ResNet, the spiking backbone of other networks: maps of spikes and their sums, no classifier.

Fang, Yu, Chen, Huang, Masquelier, Tian: Deep Residual Learning in Spiking Neural Networks. NeurIPS 2021, arXiv
2102.04159. Official code of the form here: fangwei123456/spikingjelly at df8470b,
spikingjelly/activation_based/model/sew_resnet.py. A residual block ends in a neuron, and its spikes meet those of the
shortcut behind it.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from ..layers import ConvBNNode, MakeNode, checkpoint_module

__all__ = ["BACKBONES", "Connection", "SEWResNet", "connect"]

Connection = Literal["ADD", "AND", "IAND"]


def connect(cnf: Connection, x: Tensor, branch: Tensor) -> Tensor:
    """Join the spikes of a branch with what it reads: their sum, their "and", or the branch where x is silent."""
    if cnf == "ADD":
        return x + branch
    return x * branch if cnf == "AND" else branch * (1 - x)


class _Block(nn.Module):
    """What both blocks share.

    Args:
        in_chans: channels that come in.
        width: channels of the 3x3 convolutions.
        stride: of the block, 1 or 2.
        cnf: how branch and shortcut are joined.
        node: constructor of the neurons.
    """

    expansion = 1

    def __init__(self, in_chans: int, width: int, stride: int, *, cnf: Connection, node: MakeNode):
        super().__init__()
        self.cnf, out_chans = cnf, width * self.expansion
        same = stride == 1 and in_chans == out_chans
        self.shortcut = nn.Identity() if same else ConvBNNode(in_chans, out_chans, 1, stride=stride, node=node)

    def _branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class BasicBlock(_Block):
    """Two 3x3 convolutions, see `_Block`."""

    def __init__(self, in_chans: int, width: int, stride: int, *, cnf: Connection, node: MakeNode):
        super().__init__(in_chans, width, stride, cnf=cnf, node=node)
        self.conv1 = ConvBNNode(in_chans, width, stride=stride, node=node)
        self.conv2 = ConvBNNode(width, width, node=node)

    @property
    def last(self) -> ConvBNNode:
        """The end of the branch."""
        return self.conv2

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, C, H, W)` to `(T*B, C', H', W')`."""
        branch, x = self.conv2(self.conv1(x)), self.shortcut(x)
        # official code: IAND passes the shortcut where the branch is silent, and in the bottleneck the other way round
        return connect("IAND", branch, x) if self.cnf == "IAND" else connect(self.cnf, x, branch)


class Bottleneck(_Block):
    """A 3x3 convolution between two of 1x1, the last of which widens four times, see `_Block`."""

    expansion = 4

    def __init__(self, in_chans: int, width: int, stride: int, *, cnf: Connection, node: MakeNode):
        super().__init__(in_chans, width, stride, cnf=cnf, node=node)
        self.conv1 = ConvBNNode(in_chans, width, 1, node=node)
        self.conv2 = ConvBNNode(width, width, stride=stride, node=node)
        self.conv3 = ConvBNNode(width, width * self.expansion, 1, node=node)

    @property
    def last(self) -> ConvBNNode:
        """The end of the branch."""
        return self.conv3

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, C, H, W)` to `(T*B, 4*width, H', W')`."""
        return connect(self.cnf, self.shortcut(x), self.conv3(self.conv2(self.conv1(x))))


BACKBONES: dict[str, tuple[Callable[..., nn.Module], tuple[int, int, int, int]]] = {
    "sew_resnet18": (BasicBlock, (2, 2, 2, 2)),
    "sew_resnet34": (BasicBlock, (3, 4, 6, 3)),
    "sew_resnet50": (Bottleneck, (3, 4, 6, 3)),
}
"""Block, and number of blocks in each stage, by name."""


class SEWResNet(nn.Module):
    """Stem, and four stages of residual blocks; the first block of the last three halves the sides.

    Args:
        name: a key of `BACKBONES`.
        widths: channels of the 3x3 convolutions of each stage; the stem has as many as the first.
        in_chans: channels of the input.
        cnf: how branches and shortcuts are joined.
        node: constructor of the neurons.

    Attributes:
        out_chans: channels of the maps that leave.
        grad_checkpointing: recompute each block in the backward pass.
    """

    def __init__(self, name: str, widths: tuple[int, int, int, int], in_chans: int, *, cnf: Connection, node: MakeNode):
        super().__init__()
        block, depths = BACKBONES[name]
        self.stem = ConvBNNode(in_chans, widths[0], 7, stride=2, pool="spikes", node=node)
        self.stages, chans = nn.Sequential(), widths[0]
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            stage = nn.Sequential()
            for j in range(depth):
                stage.append(block(chans, width, 2 if i and not j else 1, cnf=cnf, node=node))
                chans = width * block.expansion
            self.stages.append(stage)
        self.out_chans, self.grad_checkpointing = chans, False
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as the official code: each block passes on what comes in. The stem keeps PyTorch's own."""
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, _Block):
                nn.init.zeros_(module.last.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(T*B, C, H, W)` to sums of spikes `(T*B, C', H/32, W/32)`, the sides rounded up."""
        x = self.stem(x)
        for block in (block for stage in self.stages for block in stage):
            x = checkpoint_module(block, x) if self.grad_checkpointing and x.requires_grad else block(x)
        return x
