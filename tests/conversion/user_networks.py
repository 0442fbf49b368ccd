"""Small networks as users have them, of timm and of their own, for what is the same for all methods of conversion."""

import torch
from timm.layers import RmsNorm, SwiGLUPacked
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.beit import Beit
from timm.models.cait import Cait
from timm.models.convnext import ConvNeXt
from timm.models.deit import VisionTransformerDistilled
from timm.models.efficientnet import EfficientNet
from timm.models.eva import Eva
from timm.models.mlp_mixer import MlpMixer
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

_VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}


def vit(**options):
    """Build a small vision transformer of timm."""
    return VisionTransformer(**{**_VIT, **options})


def swin():
    """Build a small Swin of timm, with shifted windows and their masks."""
    sizes = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}
    return SwinTransformer(img_size=32, patch_size=4, num_classes=3, **sizes)


class Own(nn.Module):
    """A network of one hidden layer whose forward is a function of its layers.

    Args:
        function: maps the network and the input to the output.
        **layers: its parts.
    """

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in {"first": nn.Linear(6, 6), "head": nn.Linear(6, 3), **layers}.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


class SqueezeExcite(nn.Module):
    """A gate of the channels."""

    def __init__(self):
        super().__init__()
        self.down, self.up, self.act = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1), nn.ReLU()

    def forward(self, x):
        return x * self.up(self.act(self.down(x.mean((2, 3), keepdim=True)))).sigmoid()


class TwoInputs(nn.Module):
    """A network that reads two tensors."""

    def __init__(self):
        super().__init__()
        self.layer, self.act = nn.Linear(6, 3), nn.ReLU()

    def forward(self, x, y):
        return self.act(self.layer(x)) + y


class SelfAttention(nn.Module):
    """PyTorch's attention, with a residual sum, pooling and classifier."""

    def __init__(self):
        super().__init__()
        self.attn, self.act, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.act(x + self.attn(x, x, x, need_weights=False)[0]).mean(1))


class Recurrent(nn.Module):
    """A GRU and a classifier of its last state."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(6, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.gru(x)[0][:, -1])


def mlp(act=nn.ReLU):
    """Build a perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(6, 6), act(), nn.Linear(6, 3))


def _encoder(activation):
    layer = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True, activation=activation)
    return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(24, 3))


IMAGE, LARGE, VECTOR, TOKENS, MAP = (2, 3, 16, 16), (2, 3, 32, 32), (2, 6), (2, 4, 6), (2, 4, 8, 8)

NETWORKS = {
    "vit": (vit, IMAGE),
    "vit, relu": (lambda: vit(act_layer=nn.ReLU), IMAGE),
    "vit, registers and scales": (lambda: vit(reg_tokens=2, init_values=0.5), IMAGE),
    "vit, normalised queries": (lambda: vit(qk_norm=True), IMAGE),
    "vit, swiglu": (lambda: vit(mlp_layer=SwiGLUPacked, mlp_ratio=2), IMAGE),
    "vit, rms norm": (lambda: vit(norm_layer=RmsNorm), IMAGE),
    "vit, mean of tokens": (lambda: vit(global_pool="avg", class_token=False), IMAGE),
    "vit, no classifier": (lambda: vit(num_classes=0), IMAGE),
    "deit": (lambda: VisionTransformerDistilled(**_VIT), IMAGE),
    "swin": (swin, LARGE),
    "resnet": (lambda: ResNet(BasicBlock, (1, 1, 1, 1), num_classes=3, channels=(4, 4, 4, 4), stem_width=4), LARGE),
    "convnext": (lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), num_classes=3), LARGE),
    "efficientnet": (lambda: EfficientNet(decode_arch_def([["ds_r1_k3_s1_e1_c8_se0.25"], ["ir_r1_k3_s2_e2_c8_se0.25"]]),
                                          num_features=16, stem_size=8, act_layer=nn.SiLU, num_classes=3), LARGE),
    "mixer": (lambda: MlpMixer(img_size=16, patch_size=8, num_blocks=1, embed_dim=8, num_classes=3), IMAGE),
    "cait": (lambda: Cait(img_size=16, patch_size=8, depth=1, embed_dim=8, num_heads=2, num_classes=3), IMAGE),
    "beit": (lambda: Beit(img_size=16, patch_size=8, depth=1, embed_dim=8, num_heads=2, num_classes=3), IMAGE),
    "eva02": (lambda: Eva(img_size=16, patch_size=8, depth=1, embed_dim=8, num_heads=2, num_classes=3, swiglu_mlp=True,
                          use_rot_pos_emb=True), IMAGE),
    "multihead attention": (SelfAttention, TOKENS),
    "encoder, relu as a function": (lambda: _encoder("relu"), TOKENS),
    "relu": (mlp, VECTOR),
    "relu in place": (lambda: mlp(lambda: nn.ReLU(inplace=True)), VECTOR),
    "gelu": (lambda: mlp(nn.GELU), VECTOR),
    "relu as a function": (lambda: Own(lambda net, x: net.head(functional.relu(net.first(x)))), VECTOR),
    "relu_": (lambda: Own(lambda net, x: net.head(net.first(x).relu_())), VECTOR),
    "clamp": (lambda: Own(lambda net, x: net.head(net.first(x).clamp(min=0))), VECTOR),
    "where": (lambda: Own(lambda net, x: net.head(torch.where(x > 0, net.act(net.first(x)), -x)), act=nn.ReLU()),
              VECTOR),
    "squeeze and excite": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), SqueezeExcite(), nn.Flatten(),
                                                 nn.Linear(144, 3)), MAP),
    "gru": (Recurrent, TOKENS),
    "weight norm": (lambda: nn.Sequential(weight_norm(nn.Linear(6, 6)), nn.ReLU(), weight_norm(nn.Linear(6, 3))),
                    VECTOR),
    "relu in two places": (lambda: Own(lambda net, x: net.head(net.act(net.second(net.act(net.first(x))))),
                                           act=nn.ReLU(), second=nn.Linear(6, 6)), VECTOR),
    "max pooling": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                                          nn.Conv2d(4, 4, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
                                          nn.Linear(4, 3)), MAP),
}  # fmt: skip
"""By name what builds a network, and the shape of its input."""


def build(name):
    """Build a network, always with the same weights and somewhat large biases, and a batch for it."""
    torch.manual_seed(0)
    builder, shape = NETWORKS[name]
    network = builder().eval()
    for key, parameter in network.named_parameters():
        if key.endswith("head.weight"):
            nn.init.normal_(parameter, std=0.2)
    return network, torch.rand(shape)
