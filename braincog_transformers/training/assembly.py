"""Assemble a run from its options: data, network, precision, batches; for a training also what learns, and the plan."""

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from ..data.build import DataBundle
from ..data.registry import lookup
from ..errors import UserError
from ..recipe import Options
from ..tasks import Meter, Task, find_task
from ..version import __version__
from .converted_file import converted_file, open_converted, require_classes
from .distributed import Ranks, wrap
from .generators import seed_everything
from .learner import Learner, Plan, UpdateRules
from .loaders import Loaders, build_data, build_loaders
from .loop import evaluate
from .losses import build_losses
from .meters import ClassMeter
from .network import Shape, build_network, create_backbone, evaluates, find_shape, tune_batch_norm
from .optim import build_optimizer, build_schedule, scaled_rate
from .precision import Precision
from .source import Start, build_start, source_shape
from .teacher import build_teacher, find_teacher

__all__ = ["Parts", "build_learner", "build_parts", "check_batch"]


@dataclass
class Parts:
    """The parts of a run, whether it trains, evaluates or converts.

    Args:
        start: what a conversion starts from; None in other runs.
        task: what is done other than classification; None for that.
    """

    options: Options
    ranks: Ranks
    shape: Shape
    bundle: DataBundle
    network: nn.Module
    train_call: Any
    test_call: Any
    loaders: Loaders
    precision: Precision
    start: Start | None = None
    task: Task | None = None

    def around(self, network: nn.Module) -> "Parts":
        """Return the same run with another network."""
        train = self.options.train
        parts = wrap(network, self.ranks, sync_bn=train.sync_bn, compile_network=train.compile)
        return replace(self, **dict(zip(("network", "train_call", "test_call"), parts, strict=True)))

    @property
    def batch(self) -> tuple[int, int, int]:
        """Return samples of a forward pass, processes, and accumulated passes, whose product makes one update.

        They describe the largest update that there is: a set may be smaller than the batch that was asked for.
        """
        options, processes = self.options, self.ranks.world_size
        samples = min(options.data.batch_size, max(1, len(self.bundle.train) // processes))
        return samples, processes, min(options.optim.grad_accum, len(self.loaders.train))

    def meter(self) -> Meter:
        """Return a new meter of what the run is judged by."""
        return ClassMeter(build_losses(self.options.train)[1]) if self.task is None else self.task.meter(self.bundle)

    def evaluate(self, meter: Meter | None = None) -> dict[str, float]:
        """Measure the network on the test samples, by a new meter or one that is given."""
        self.network.eval()
        return evaluate(
            self.test_call, self.loaders.test, meter=self.meter() if meter is None else meter,
            to_device=self.loaders.to_device, ranks=self.ranks, autocast=self.precision.autocast,
            seed=self.options.run.seed,
        )  # fmt: skip


def build_parts(options: Options, ranks: Ranks) -> Parts:
    """Build everything but what learns.

    Raises:
        UserError: for a mistake of the user's making.
        FileNotFoundError: for missing data.
    """
    seed_everything(options.run.seed)
    precision = Precision(ranks.device.type, options.train.amp_dtype if options.train.amp else None)
    if options.task.task:
        return _build_task(options, ranks, precision)
    file, converts, held = converted_file(options), bool(options.convert.convert), None
    if file is not None:
        options, shape, held = open_converted(options, file)
    else:
        shape = source_shape(options) if converts else find_shape(options)
    if options.train.teacher not in ("", "source"):
        find_teacher(options.train.teacher)  # a wrong name shows before the data are read
    bundle = ranks.first_alone(lambda: build_data(options, shape, ranks))
    shape = replace(shape, num_classes=bundle.num_classes)
    loaders = build_loaders(options, bundle, shape, ranks)
    seed_everything(options.run.seed)  # the weights do not depend on what reading the data drew
    about = {"say": ranks.say, "classes": bundle.classes}
    if held is not None:
        require_classes(held, file, bundle.classes, options, ranks.say)
        held = held.to(ranks.device)
        return Parts(options, ranks, shape, bundle, held, held, held, loaders, precision)
    if converts:
        start = build_start(options, shape, ranks, **about)
        calls = (start.network,) * 3
        return Parts(options, ranks, shape, bundle, *calls, loaders, precision, start)
    network = build_network(options, shape, ranks, **about)
    calls = wrap(network, ranks, sync_bn=options.train.sync_bn, compile_network=options.train.compile)
    return Parts(options, ranks, shape, bundle, *calls, loaders, precision)


def _build_task(options: Options, ranks: Ranks, precision: Precision) -> Parts:
    """Build the parts of a run with another task than classification."""
    task, info = find_task(options.task.task)(options), lookup(options.data.dataset)
    bundle = ranks.first_alone(lambda: task.build_data(info, Path(options.data.data_dir)))
    for part, dataset in (("training", bundle.train), ("test", bundle.test)):
        if not len(dataset) and not (part == "training" and evaluates(options)):
            raise UserError(f"--dataset {info.name}: its {part} part is empty (--data-dir {options.data.data_dir})")
    shape = Shape(info, tuple(bundle.input_shape[-2:]), options.model.step or 0, bundle.num_classes)
    loaders = build_loaders(options, bundle, shape, ranks, test_batch=task.test_batch)
    seed_everything(options.run.seed)  # the weights do not depend on what reading the data drew
    network = task.build_network(bundle, partial(create_backbone, options, shape, bundle), ranks.say)
    tune_batch_norm(network, options.model)
    layout = torch.channels_last if options.train.channels_last else torch.preserve_format
    network = network.to(ranks.device).to(memory_format=layout)
    calls = wrap(network, ranks, sync_bn=options.train.sync_bn, compile_network=options.train.compile)
    shape = replace(shape, step=getattr(network, "step", None) or shape.step)
    return Parts(options, ranks, shape, bundle, *calls, loaders, precision, task=task)


def check_batch(parts: Parts) -> None:
    """Refuse a batch of one sample if a normalisation would see a single value.

    Raises:
        UserError: with the smallest batch that trains.
    """
    options, processes = parts.options, parts.ranks.world_size
    smallest = min(options.data.batch_size, len(parts.bundle.train) // processes)
    if parts.task is not None or smallest > 1 or (options.train.sync_bn and processes > 1):
        return
    probe = deepcopy(parts.network).to("meta").train()
    x, _ = parts.loaders.to_device(torch.zeros(1, *parts.bundle.input_shape), torch.zeros(1))
    try:
        with torch.no_grad():
            probe(x.to("meta"))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"--batch-size 1: {options.model.model} normalises over the samples of a batch and can't train on one "
            "alone; give 2 or more (--grad-accum does not help)."
        ) from None


def _ranking_metric(parts: Parts) -> str:
    """Return the column that ranks epochs: that of the average where it is evaluated, as in timm."""
    train, metric, bundle = parts.options.train, parts.options.run.eval_metric, parts.bundle
    if metric == "top5" and bundle.num_classes < 5:
        raise UserError(f"--eval-metric top5 needs five classes; {bundle.info.name} has {bundle.num_classes}.")
    metric = "loss" if train.pretrain else metric if parts.task is None else parts.task.metric
    averaged = train.model_ema and not train.model_ema_force_cpu
    return f"{'ema' if averaged else 'test'}_{metric}"


def build_learner(parts: Parts) -> tuple[Learner, Plan]:
    """Build what learns, and the plan of the run."""
    options, train, metric, task = parts.options, parts.options.train, _ranking_metric(parts), parts.task
    decreasing = metric.endswith("loss") if task is None else task.decreasing
    lr = scaled_rate(options.sched.lr, batch=math.prod(parts.batch), base=options.sched.lr_base_size)
    optimizer = build_optimizer(parts.network, options.optim, lr=lr)
    rules = UpdateRules(
        grad_accum=options.optim.grad_accum, clip_grad=options.optim.clip_grad, noisy_grad=options.optim.noisy_grad,
        random_steps=parts.shape.step if options.model.rand_step else 0, step_outputs=train.tet_loss,
        gives_target=task is not None and task.takes_target,
    )  # fmt: skip
    updates = rules.updates_of(len(parts.loaders.train))
    scheduler, epochs = build_schedule(
        optimizer, options.sched, decreasing=decreasing, seed=options.run.seed, updates=updates
    )
    average = None
    if train.model_ema:
        device = torch.device("cpu") if train.model_ema_force_cpu else None
        average = ModelEmaV3(parts.network, decay=train.model_ema_decay, device=device)
    learner = Learner(
        network=parts.network, optimizer=optimizer, precision=parts.precision, seed=options.run.seed,
        rank=parts.ranks.rank, scheduler=scheduler, ema=average, train_call=parts.train_call, test_call=parts.test_call,
    )  # fmt: skip
    criterion = build_losses(train)[0] if task is None else task.criterion()
    about = {
        "version": __version__,
        "arch": options.model.model,
        "options": options.to_dict(),
        "classes": [] if train.pretrain else list(parts.bundle.classes),
    }
    plan = Plan(
        epochs=epochs, rules=rules, criterion=criterion, meter=parts.meter, metric=metric, decreasing=decreasing,
        max_steps=train.max_steps, recovery_interval=options.run.recovery_interval, bn_mode=train.dist_bn,
        seed=options.run.seed, about=about, teacher=_teacher(parts), labelled=not train.pretrain and task is None,
    )  # fmt: skip
    return learner, plan


def _teacher(parts: Parts) -> nn.Module | None:
    """Build the teacher, if one is named, and let the network's distillation head learn from it."""
    options, bundle, ranks = parts.options, parts.bundle, parts.ranks
    if not options.train.teacher:
        return None
    if options.train.teacher == "source":
        return _source_as_teacher(parts)
    ends = {"size": parts.shape.size, "in_chans": bundle.input_shape[0], "num_classes": bundle.num_classes}
    given = ends | {"device": ranks.device, "ema": options.run.use_ema}
    teacher = ranks.first_alone(lambda: build_teacher(options.train, **given))
    has_head = getattr(parts.network, "distilled", False)
    if has_head:
        parts.network.set_distilled_training(True)
    count = sum(parameter.numel() for parameter in teacher.parameters())
    ranks.say(
        f"teacher {options.train.teacher}: {count:,} parameters, {options.train.distill} distillation "
        + ("on the network's distillation head" if has_head else "on the network's own logits")
    )
    colours = [tuple(options.value(name) or getattr(bundle.info, name)) for name in ("mean", "std")]
    learnt = [tuple(teacher.default_cfg[name]) for name in ("mean", "std")]
    if learnt != colours and not options.train.teacher_checkpoint:
        ranks.say(f"the teacher learnt on images of mean and std {learnt}; these have {colours} (--mean, --std)")
    return teacher


def _source_as_teacher(parts: Parts) -> nn.Module:
    """Return the network that is converted, for its quantised form to learn from."""
    if not parts.start.trained:
        raise UserError("--teacher source: its weights are random, or those of its prepared form; name a trained file")
    parts.ranks.say(f"teacher: the source itself, {parts.options.train.distill} distillation")
    return deepcopy(parts.start.network).eval().requires_grad_(False)
