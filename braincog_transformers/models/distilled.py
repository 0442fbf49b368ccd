"""A second classifier, which learns from a teacher network."""

from torch import Tensor, nn

from ..errors import UserError

__all__ = ["Distilled"]


class Distilled:
    """Mixin of a network, in front of `SpikingTransformer`, that may have a second classifier for what a teacher says.

    The logits are then the mean of the two.

    Attributes:
        distilled: whether there is one.
        distilled_training: see `set_distilled_training`.
    """

    distilled = distilled_training = False

    def _build_heads(self, distilled: bool) -> None:
        """Build the classifier, or both; for subclasses."""
        self.distilled = distilled
        self.head = self._new_head(self.num_classes)
        self.head_dist = self._new_head(self.num_classes) if distilled else None

    def set_distilled_training(self, enable: bool = True) -> None:
        """Return both classifiers' logits in training mode, as a pair, instead of their mean."""
        if enable and not self.distilled:
            owner = type(self).__name__
            raise UserError(f"{owner}: there is no second classifier to learn from a teacher (distilled=True)")
        self.distilled_training = enable

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        """Return the last layer, with distillation both."""
        return (self.head, self.head_dist) if self.distilled else self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer, with distillation both; see `SpikingTransformer`."""
        super().reset_classifier(num_classes, global_pool)
        if self.distilled:
            self.head_dist = self._new_head(num_classes)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Map features to logits, or a pair of them, see `set_distilled_training`."""
        if pre_logits or not self.distilled:
            return super().forward_head(x, pre_logits)
        with self._planes(x):
            first = super().forward_head(x, pre_logits=True)
            logits, distilled = self.head(first), self.head_dist(self._second_input(x, first))
        return (logits, distilled) if self.training and self.distilled_training else (logits + distilled) / 2

    def _second_input(self, x: Tensor, first: Tensor) -> Tensor:
        """Return what the second classifier reads, of the features and of what the first one reads; for subclasses."""
        return first
