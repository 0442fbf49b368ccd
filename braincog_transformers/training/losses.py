"""Losses on logits `(B, K)` or, for temporal efficient training, on the logits of every step `(T, B, K)`.

A target is a class index `(B,)` or, after mixing, a distribution over the classes `(B, K)`.
"""

import torch
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError, unknown
from ..recipe.groups import TrainOptions

__all__ = ["LOSSES", "CrossEntropy", "Distillation", "MeanSquaredError", "OwnLoss", "TemporalEfficientLoss"]
__all__ += ["build_loss", "build_losses", "dominating_label", "mean_over_steps", "right_answers", "soft_labels"]


def dominating_label(target: Tensor) -> Tensor:
    """Return the class `(B,)` with the greatest share of each target, which accuracy is measured against."""
    return target if target.ndim == 1 else target.argmax(dim=1)


def right_answers(logits: Tensor, target: Tensor) -> Tensor:
    """Return how many samples have their greatest logit at the label; none where there are losses `(B,)` instead."""
    if logits.ndim == 1:
        return logits.new_zeros((), dtype=torch.long)
    return (mean_over_steps(logits).argmax(dim=1) == dominating_label(target)).sum()


def mean_over_steps(logits: Tensor) -> Tensor:
    """Return logits `(B, K)`: those of every step `(T, B, K)` averaged, others as they are."""
    return logits.mean(dim=0) if logits.ndim == 3 else logits


def soft_labels(target: Tensor, *, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Return distributions `(B, K)` of float32 for class indices `(B,)`; distributions pass through.

    Args:
        target: class indices `(B,)` or distributions `(B, K)`.
        num_classes: number of classes K.
        smoothing: share that is spread evenly over all classes, in [0, 1).
    """
    if target.ndim == 2:
        return target
    return functional.one_hot(target, num_classes).float() * (1.0 - smoothing) + smoothing / num_classes


class CrossEntropy(nn.Module):
    """Cross entropy of indices, with label smoothing, or of distributions, which are taken as they are."""

    def __init__(self, *, smoothing: float = 0.0):
        super().__init__()
        self.of_indices = LabelSmoothingCrossEntropy(smoothing) if smoothing > 0 else nn.CrossEntropyLoss()
        self.of_distributions = SoftTargetCrossEntropy()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return (self.of_indices if target.ndim == 1 else self.of_distributions)(logits, target)


class MeanSquaredError(nn.Module):
    """Mean squared distance of the logits to the (smoothed) one-hot target, over batch and classes."""

    def __init__(self, *, smoothing: float = 0.0):
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        goal = soft_labels(target, num_classes=logits.shape[-1], smoothing=self.smoothing)
        return functional.mse_loss(logits, goal)


class TemporalEfficientLoss(nn.Module):
    """Average a loss over the steps and pull every logit towards a constant.

    `(1 - weight) * mean_t loss(logits_t, y) + weight * mean((logits - mean)^2)`

    Args:
        loss: the loss of one step's logits `(B, K)`.
        weight: share of the second term, in [0, 1].
        mean: the constant that the logits are pulled towards (the paper's threshold).

    Source: Deng et al., Temporal Efficient Training, ICLR 2022, equations 10 to 12.
    """

    def __init__(self, loss: nn.Module, *, weight: float = 0.0, mean: float = 1.0):
        super().__init__()
        if not 0.0 <= weight <= 1.0:
            raise UserError(f"TET loss: the weight of its second term must lie in [0, 1]; got {weight}.")
        self.loss = loss
        self.weight = weight
        self.mean = mean

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.ndim == 2:
            raise ValueError("TemporalEfficientLoss: logits of every step (T, B, K) are needed; got their mean (B, K).")
        of_steps = torch.stack([self.loss(step, target) for step in logits]).mean()
        if self.weight == 0:
            return of_steps
        pull = (logits - self.mean).square().mean()
        return (1.0 - self.weight) * of_steps + self.weight * pull


class Distillation(nn.Module):
    """Learn from labels and from a teacher at once: `(1 - alpha) * loss(z, y) + alpha * d(z_d, teacher)`.

    Hard, d is the cross entropy with the teacher's class. Soft, it is the Kullback-Leibler divergence of the
    distributions at temperature tau, times tau^2, averaged over all elements.

    Args:
        loss: the loss of logits and labels.
        kind: `hard` or `soft`.
        alpha: share of the teacher, in [0, 1].
        tau: temperature of the soft kind, above 0.

    Source: Touvron et al., DeiT, ICML 2021, equations 2 and 3; Yao et al., Spike-driven Transformer V2, ICLR 2024.
    """

    def __init__(self, loss: nn.Module, *, kind: str = "hard", alpha: float = 0.5, tau: float = 1.0):
        super().__init__()
        self.loss = loss
        self.kind = kind
        self.alpha = alpha
        self.tau = tau

    def forward(self, logits: Tensor, distilled: Tensor, target: Tensor, taught: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: what is compared with the labels, `(B, K)` or `(T, B, K)`.
            distilled: logits of the distillation head, or those above once more.
            target: class indices `(B,)` or distributions `(B, K)`.
            taught: logits of the teacher, `(B, K)`.
        """
        return (1.0 - self.alpha) * self.loss(logits, target) + self.alpha * self._distance(
            mean_over_steps(distilled), taught
        )

    def _distance(self, distilled: Tensor, taught: Tensor) -> Tensor:
        if self.kind == "hard":
            return functional.cross_entropy(distilled, taught.argmax(dim=1))
        own, wanted = ((logits / self.tau).log_softmax(dim=1) for logits in (distilled, taught))
        return functional.kl_div(own, wanted, reduction="sum", log_target=True) * self.tau**2 / own.numel()


class OwnLoss(nn.Module):
    """The mean of `(B,)`, what a network returns that computes the loss of each sample itself, without labels."""

    def forward(self, losses: Tensor, target: Tensor) -> Tensor:
        return losses.mean()


# timm's binary cross entropy turns indices into smoothed one-hot targets itself
LOSSES = {"ce": CrossEntropy, "mse": MeanSquaredError, "bce": BinaryCrossEntropy}


def build_loss(
    name: str, *, smoothing: float = 0.0, tet: bool = False, tet_weight: float = 0.0, tet_mean: float = 1.0
) -> nn.Module:
    """Build the training loss.

    Args:
        name: `ce`, `mse` or `bce`.
        smoothing: label smoothing of class indices, in [0, 1).
        tet: average over the steps' own losses (`TemporalEfficientLoss`).
        tet_weight: share of TET's second term.
        tet_mean: constant of TET's second term.

    Raises:
        UserError: for an unknown name.
    """
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    if not 0.0 <= smoothing < 1.0:
        raise UserError(f"--smoothing must lie in [0, 1); got {smoothing}.")
    loss = LOSSES[name](smoothing=smoothing)
    return TemporalEfficientLoss(loss, weight=tet_weight, mean=tet_mean) if tet else loss


def build_losses(train: TrainOptions) -> tuple[nn.Module, nn.Module]:
    """Return the losses of training and of evaluation; the latter without smoothing and losses by step."""
    if train.pretrain:
        return OwnLoss(), OwnLoss()
    tet = {"tet": train.tet_loss, "tet_weight": train.tet_lambda, "tet_mean": train.tet_means}
    training = build_loss(train.loss_fn, smoothing=train.smoothing, **tet)
    if train.teacher:
        training = Distillation(training, kind=train.distill, alpha=train.distill_alpha, tau=train.distill_tau)
    return training, build_loss(train.loss_fn)
