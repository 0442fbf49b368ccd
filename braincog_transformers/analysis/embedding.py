"""Features of a network, and their embeddings in the plane."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from .recorder import outputs, unwrap

__all__ = ["classifier_features", "principal_components", "tsne"]

MOST_SAMPLES = 2000


def classifier_features(
    model: nn.Module, batches: Iterable[Sequence[Tensor]], *, limit: int = MOST_SAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Collect what the classifier sees, averaged over steps if it sees them one by one.

    Args:
        batches: `(input, class)` pairs.
        limit: stop after so many samples.

    Returns:
        Features `(N, C)` and classes `(N,)`.

    Raises:
        UserError: no batch came, or the network has no classifier.
    """
    inner = unwrap(model)
    head = inner.get_classifier() if hasattr(inner, "get_classifier") else _last_linear(inner)
    seen: list[Tensor] = []
    features, labels, count = [], [], 0
    handle = head.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach().float().cpu()))
    try:
        for _, (inputs, target, *_) in outputs(model, batches):
            # (T, B, C), (T*B, C), (B, C), or T calls of (B, C)
            folded = torch.cat(seen).reshape(-1, len(inputs), seen[0].shape[-1])
            seen.clear()
            features.append(folded.mean(0))
            labels.append(target.cpu())
            count += len(inputs)
            if count >= limit:
                break
    finally:
        handle.remove()
    if not features:
        raise UserError("classifier_features: needs at least one batch; got none (an empty split?)")
    return torch.cat(features)[:limit].numpy(), torch.cat(labels)[:limit].numpy()


def _last_linear(model: nn.Module) -> nn.Module:
    """Find the classifier of a network that does not name it: its last linear layer."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UserError(f"classifier_features: needs a linear classifier; {type(model).__name__} has none")
    return layers[-1]


def principal_components(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project features `(N, C)` on their two principal axes.

    Returns:
        `(N, 2)`, and the shares of the variance on either axis, in [0, 1]; zeros where there is no second axis.
    """
    centred = features - features.mean(0)
    u, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    missing = max(2 - len(strengths), 0)
    points = np.pad((u * strengths)[:, :2], ((0, 0), (0, missing)))
    shares = strengths**2 / max(float((strengths**2).sum()), 1e-30)
    return points, np.pad(shares, (0, missing))[:2]


def tsne(features: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Embed features `(N, C)` of three samples or more in the plane by t-SNE: `(N, 2)`."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    # Equal features, of a network that does not fire yet, have no principal axes: scikit-learn would crash on NaN.
    init = "pca" if np.ptp(features, axis=0).any() else "random"
    return TSNE(perplexity=perplexity, init=init, random_state=seed).fit_transform(features)
