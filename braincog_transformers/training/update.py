"""One optimizer step: forward and backward of each accumulated batch, then clip, noise, update, average."""

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..errors import NonFiniteLoss
from .diagnose import bad_gradients, describe_non_finite, has_sound_sum, is_finite
from .distributed import Ranks, last_sync_only
from .learner import Learner
from .loaders import Mixer, ToDevice
from .losses import dominating_label, mean_over_steps
from .plan import UpdateRules

__all__ = ["update_weights"]


class _FiniteCheck:
    """Ask whether inputs and losses are finite without emptying the device's queue: the answer travels while backward
    runs.
    """

    def __init__(self) -> None:
        self.flags: list[Tensor] = []
        self.arrived: torch.cuda.Event | None = None

    def add(self, sound: Tensor, loss: Tensor) -> None:
        """Note the flag of a batch's input, see `has_sound_sum`, and its loss."""
        flag = sound.to(loss.device) & torch.isfinite(loss.detach())
        self.flags.append(flag.to("cpu", non_blocking=True))
        if loss.is_cuda:
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def failures(self) -> list[int]:
        """Return the places of the batches whose flag is unset."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return [place for place, flag in enumerate(self.flags) if not flag]


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


def _update(learner: Learner, rules: UpdateRules, *, step: int) -> None:
    precision, scaled = learner.precision, learner.precision.scaler is not None
    if rules.noisy_grad or rules.clip_grad is not None:
        precision.unscale(learner.optimizer)
    if rules.noisy_grad:
        _add_noise(learner, rules.noisy_grad)
    if rules.clip_grad is not None or not scaled:
        norm = get_total_norm([one.grad for one in learner.network.parameters() if one.grad is not None])
        if not scaled and not norm.isfinite():
            _stop_at_gradients(learner, step=step)
        if rules.clip_grad is not None:
            clip_grads_with_norm_(learner.network.parameters(), rules.clip_grad, norm)
    precision.step(learner.optimizer)
    if precision.hopeless:
        raise NonFiniteLoss(
            f"at step {step} the gradients overflow float16 however small they are scaled, so that no step is taken "
            "any more; use --amp-dtype bfloat16, or lower --lr."
        )
    learner.optimizer.zero_grad(set_to_none=True)
    if learner.ema is not None:
        learner.ema.update(learner.network, step=step)


def _stop_at_gradients(learner: Learner, *, step: int) -> None:
    """Raise where a gradient is not finite; the norm of finite ones may overflow. All ranks have the same gradients."""
    if found := bad_gradients(learner.network):
        raise NonFiniteLoss(
            f"at step {step}, learning rate {learner.learning_rate:.3g}, gradients are not finite though the loss is: "
            f"{found}. Nothing was saved after it; lower --lr, or set --clip-grad."
        )


def _failed(place: int, losses: list[Tensor], seen: list[Tensor]) -> bool:
    """Look closely at a batch whose flag is unset: the sum of a finite input may overflow."""
    return not (is_finite(losses[place]) and is_finite(seen[place]))


def _stop_non_finite(learner: Learner, x: Tensor | None, *, step: int) -> None:
    where = "it arose on another rank"
    if x is not None:

        def again() -> Tensor:
            with learner.precision.autocast():
                return learner.network(x)

        where = describe_non_finite(learner.network, x, again)
    raise NonFiniteLoss(
        f"the numbers are no longer finite at step {step}, learning rate {learner.learning_rate:.3g}: {where}. "
        "Nothing was saved after it; lower --lr, or set --clip-grad."
    )


def _forward(
    learner: Learner, x: Tensor, target: Tensor, *, criterion: nn.Module, teacher: nn.Module | None
) -> tuple[Tensor, Tensor]:
    """Return the loss and the logits; of a network with a distillation head, the mean of both heads' logits."""
    with learner.precision.autocast():
        output = learner.train_call(x)
    logits, distilled = (one.float() for one in (output if isinstance(output, tuple) else (output, output)))
    if teacher is None:
        return criterion(logits, target), logits.detach()
    with torch.no_grad(), learner.precision.autocast():
        taught = teacher(x)
    return criterion(logits, distilled, target, taught.float()), (logits.detach() + distilled.detach()) / 2


def update_weights(
    learner: Learner,
    batches: list[tuple[Tensor, Tensor]],
    *,
    step: int,
    criterion: nn.Module,
    to_device: ToDevice,
    rules: UpdateRules,
    ranks: Ranks,
    mixer: Mixer | None = None,
    teacher: nn.Module | None = None,
) -> Tensor:
    """Update the weights once with the mean gradient of the batches.

    Args:
        learner: what learns.
        batches: the batches whose gradients are accumulated.
        step: number of this step, from 0.
        criterion: loss of logits and target; with a teacher, `losses.Distillation`.
        to_device: brings a batch to the device.
        rules: what the step does beside the plain descent.
        ranks: the processes of the run.
        mixer: mixes the samples of a batch into soft targets.
        teacher: maps the mixed batch to the logits that the network learns beside the labels.

    Returns:
        `(3,)`: loss x samples, right answers, samples, on the device in float64.

    Raises:
        NonFiniteLoss: before the update, when an input, a loss or, without scaling, a gradient is infinite or not a
            number on any rank.
    """
    check, seen, losses = _FiniteCheck(), [], []
    sums = torch.zeros(3, dtype=torch.float64, device=to_device.device)
    for number, batch in enumerate(batches, start=1):
        x, target = to_device(*batch)
        sound = has_sound_sum(x)
        if mixer is not None:
            x, target = mixer(x, target, learner.generators["mixing"])
        if rules.random_steps:
            x = _draw_steps(learner, x, rules.random_steps)
        with last_sync_only(learner.train_call, last=number == len(batches)):
            loss, logits = _forward(learner, x, target, criterion=criterion, teacher=teacher)
            check.add(sound, loss)
            learner.precision.backward(loss / len(batches))
        seen.append(x)
        losses.append(loss.detach())
        right = mean_over_steps(logits).argmax(dim=1) == dominating_label(target)
        sums += torch.stack([loss.detach().double() * len(x), right.sum().double(), sums.new_tensor(len(x))])
    failure = next((number for number in check.failures() if _failed(number, losses, seen)), None)
    if ranks.any(failure is not None):
        _stop_non_finite(learner, None if failure is None else seen[failure], step=step)
    _update(learner, rules, step=step)
    return sums
