"""Fold a batch normalisation's running statistics into the layer in front of it, where that changes no result."""

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["Foldable", "baked", "foldable", "folded"]

_LAYERS = (nn.Conv2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
# Hooks that compute a layer's weight before each call; any other hook may read what is folded away.
_REWRITING = (WeightNorm, SpectralNorm, BasePruningMethod)


def foldable(*modules: nn.Module) -> bool:
    """Return whether layers and normalisations, in evaluation, compute nothing but what their parameters define.

    A normalisation without running statistics, or in training mode, depends on the batch; a class from outside PyTorch
    may compute anything; and a hook expects to see what its module returns.
    """
    return all(_is_foldable(module) for module in modules)


def _is_foldable(module: nn.Module) -> bool:
    hooks = [*module._forward_hooks.values(), *module._backward_hooks.values(), *module._backward_pre_hooks.values()]
    hooks += [hook for hook in module._forward_pre_hooks.values() if not isinstance(hook, _REWRITING)]
    if module.training or hooks or "forward" in vars(module):
        return False
    if type(module) in _NORMS:
        return module.running_mean is not None and not module._forward_pre_hooks
    return type(module).forward in {layer.forward for layer in _LAYERS}


@torch.no_grad()
def baked(layer: nn.Module) -> nn.Module:
    """Return a layer whose parameter is the weight that it computes with, without weight or spectral norm.

    Args:
        layer: a `foldable` one; it stays as it is, and is returned if it has nothing to bake.
    """
    rewriting = list(layer._forward_pre_hooks.values())
    if not rewriting and not parametrize.is_parametrized(layer):
        return layer
    for hook in rewriting:
        hook(layer, None)
    kind = next(kind for kind in _LAYERS if isinstance(layer, kind))
    given = {name: getattr(layer, name) for name in kind.__constants__ if name != "output_padding"}
    new = kind(**given, bias=layer.bias is not None, device=layer.weight.device, dtype=layer.weight.dtype).eval()
    for name, parameter in new.named_parameters():
        parameter.copy_(getattr(layer, name))
    return new.requires_grad_(any(parameter.requires_grad for parameter in layer.parameters()))


def folded(layer: nn.Module, bn: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the layer with the normalisation folded in, and nothing in its place; or both, if not `foldable`."""
    if not foldable(layer, bn):
        return layer, bn
    layer = baked(layer)
    fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
    return fuse(layer, bn), nn.Identity()


class Foldable:
    """Mixin of a module whose normalisation `bn` stands behind its layer, `conv` or `linear`."""

    def fuse(self) -> "Foldable":
        """Fold the normalisation's running statistics into the layer, if they are `foldable`."""
        name = "conv" if hasattr(self, "conv") else "linear"
        layer, self.bn = folded(getattr(self, name), self.bn)
        setattr(self, name, layer)
        return self
