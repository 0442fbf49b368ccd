"""One training step: forward and backward of each accumulated batch, then clip, noise, update, average."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..errors import NonFiniteLoss
from ..models.base import SpikingTransformer
from ..runtime.batch import in_float32
from .diagnose import bad_gradients, describe_non_finite, has_sound_sum, is_finite
from .distributed import Ranks, last_sync_only
from .learner import Learner, UpdateRules
from .loaders import Mixer, ToDevice
from .losses import right_answers

__all__ = ["update_weights"]


class _FiniteCheck:
    """Ask whether inputs and losses are finite without emptying the device's queue: the answer travels while backward
    runs.
    """

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, tuple, Tensor]] = []
        self.arrived: torch.cuda.Event | None = None

    def add(self, inputs: tuple, loss: Tensor, sound: Tensor) -> None:
        """Note a batch and its loss, and the flag of its input before mixing, see `has_sound_sum`."""
        flag = sound.to(loss.device) & torch.isfinite(loss)
        self.batches.append((flag.to("cpu", non_blocking=True), inputs, loss))
        if loss.is_cuda:
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def failed(self) -> tuple | None:
        """Return the inputs of the first batch that is not finite, or whose loss isn't.

        The sum of finite values may overflow, so each suspect is looked at closely.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        suspects = ((inputs, loss) for flag, inputs, loss in self.batches if not flag)
        return next((inputs for inputs, loss in suspects if not (is_finite(loss) and is_finite(inputs[0]))), None)


def _draw_steps(learner: Learner, x: Tensor, most: int) -> Tensor:
    """Set a random T for this batch; of event frames and of sequences the first T are kept."""
    steps = int(torch.randint(1, most + 1, (), generator=learner.generators["steps"]))
    learner.network.set_attr("step", steps)
    return x if x.ndim == 4 else x[:, :steps]


def _add_noise(learner: Learner, deviation: float) -> None:
    generator = learner.generators["noise"]
    for parameter in learner.network.parameters():
        if (grad := parameter.grad) is not None:
            noise = torch.randn(grad.shape, generator=generator, device=grad.device, dtype=grad.dtype)
            grad.add_(noise, alpha=deviation)


def _descend(learner: Learner, rules: UpdateRules, *, update: int) -> None:
    """Clip the gradients, add noise, and update weights and average."""
    scaler, optimizer, clips = learner.precision.scaler, learner.optimizer, rules.clip_grad is not None
    if rules.noisy_grad or clips:
        scaler.unscale_(optimizer)
    if rules.noisy_grad:
        _add_noise(learner, rules.noisy_grad)
    if clips or not scaler.is_enabled():
        norm = get_total_norm([one.grad for one in learner.network.parameters() if one.grad is not None])
        # the norm of finite gradients may overflow; all ranks have the same gradients
        if not scaler.is_enabled() and not norm.isfinite() and (found := bad_gradients(learner.network)):
            raise NonFiniteLoss(
                f"at step {update}, learning rate {learner.learning_rate:.3g}, gradients are not finite though the "
                f"loss is: {found}. Nothing was saved after it; lower --lr, or set --clip-grad."
            )
        if clips:
            clip_grads_with_norm_(learner.network.parameters(), rules.clip_grad, norm)
    scaler.step(optimizer)
    scaler.update()
    if learner.precision.hopeless:
        raise NonFiniteLoss(
            f"at step {update} the gradients overflow float16 however small they are scaled, so that no step is taken "
            "any more; use --amp-dtype bfloat16, or lower --lr."
        )
    optimizer.zero_grad(set_to_none=True)
    if learner.ema is not None:
        learner.ema.update(learner.network, step=update)


def _stop_non_finite(learner: Learner, inputs: tuple | None, *, update: int) -> None:
    where = "it arose on another rank"
    if inputs is not None:
        with learner.precision.autocast():
            where = describe_non_finite(learner.network, *inputs)
    raise NonFiniteLoss(
        f"the numbers are no longer finite at step {update}, learning rate {learner.learning_rate:.3g}: {where}. "
        "Nothing was saved after it; lower --lr, or set --clip-grad."
    )


def _forward(
    learner: Learner, inputs: tuple, target: Any, *, criterion: nn.Module, teacher: nn.Module | None, labelled: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss, the network's own term in it, and the logits; of a network with a distillation head, the mean of
    both heads' logits, and None of one that has no classes."""
    with learner.precision.autocast():
        output = learner.train_call(*inputs)
    if not labelled:
        return _with_own(learner.network, criterion(in_float32(output), target)), None
    logits, distilled = (one.float() for one in (output if isinstance(output, tuple) else (output, output)))
    if teacher is None:
        return _with_own(learner.network, criterion(logits, target)), logits.detach()
    with torch.no_grad(), learner.precision.autocast():
        taught = teacher(*inputs)
    loss = criterion(logits, distilled, target, taught.float())
    return _with_own(learner.network, loss), (logits.detach() + distilled.detach()) / 2


def _with_own(network: nn.Module, loss: Tensor) -> Tensor:
    """Add what the network itself asks for, if it does."""
    own = network.extra_loss() if isinstance(network, SpikingTransformer) else None
    return loss if own is None else loss + own


def update_weights(
    learner: Learner, batches: list[tuple[Any, Any]], *, update: int, criterion: nn.Module, to_device: ToDevice,
    rules: UpdateRules, ranks: Ranks, mixer: Mixer | None = None, teacher: nn.Module | None = None,
    labelled: bool = True,
) -> Tensor:  # fmt: skip
    """Update the weights once with the mean gradient of the batches.

    Args:
        learner: what learns.
        batches: the batches whose gradients are accumulated.
        update: number of this update, from 0.
        criterion: loss of logits and target; with a teacher, `losses.Distillation`.
        to_device: brings a batch to the device.
        rules: what is done beside the descent along the gradient.
        ranks: the processes of the run.
        mixer: mixes the samples of a batch into soft targets.
        teacher: maps the mixed batch to the logits that the network learns beside the labels.
        labelled: whether the network puts out logits of classes.

    Returns:
        `(3,)`: loss x samples, right answers, samples, on the device in float64.

    Raises:
        NonFiniteLoss: before the update, when an input, a loss or, without scaling, a gradient is infinite or not a
            number on any rank.
    """
    check, sums = _FiniteCheck(), torch.zeros(3, dtype=torch.float64, device=to_device.device)
    for number, batch in enumerate(batches, start=1):
        x, target = to_device(*batch)
        sound = has_sound_sum(x)
        if mixer is not None:
            x, target = mixer(x, target, learner.generators["mixing"])
        if rules.random_steps:
            x = _draw_steps(learner, x, rules.random_steps)
        inputs = (x, target) if rules.gives_target else (x,)
        with last_sync_only(learner.train_call, last=number == len(batches)):
            loss, logits = _forward(learner, inputs, target, criterion=criterion, teacher=teacher, labelled=labelled)
            check.add(inputs, loss.detach(), sound)
            learner.precision.scaler.scale(loss / len(batches)).backward()
        right = sums.new_zeros(()) if logits is None else right_answers(logits, target).double()
        sums += torch.stack([loss.detach().double() * len(x), right, sums.new_tensor(len(x))])
    failed = check.failed()
    if ranks.any(failed is not None):
        _stop_non_finite(learner, failed, update=update)
    _descend(learner, rules, update=update)
    return sums
