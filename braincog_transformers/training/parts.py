"""What every kind of run is made of: data, network, precision, and how batches come."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from tqdm import tqdm

from ..data.build import DataBundle
from ..recipe import Options
from .build import (
    Shape,
    build_data,
    build_loaders,
    build_losses,
    build_mixer,
    build_network,
    evaluates,
    find_shape,
)
from .class_names import compare_classes
from .distributed import Ranks, wrap
from .generators import seed_everything
from .learner import Place
from .loop import evaluate
from .plan import Feed
from .precision import Precision
from .teacher import find_teacher

__all__ = ["Parts", "build_parts"]


@dataclass
class Parts:
    """What every kind of run is made of."""

    options: Options
    ranks: Ranks
    shape: Shape
    bundle: DataBundle
    network: nn.Module
    train_call: Any
    test_call: Any
    feed: Feed
    precision: Precision

    @property
    def batch(self) -> tuple[int, int, int]:
        """Return samples of a forward pass, processes, and accumulated passes, whose product makes an optimizer step.

        A set that is smaller than what was asked for has no step of that size, for which no learning rate is scaled.
        """
        options, processes = self.options, self.ranks.world_size
        samples = min(options.data.batch_size, max(1, len(self.bundle.train) // processes))
        return samples, processes, min(options.optim.grad_accum, len(self.feed.train))

    @property
    def say(self) -> Callable[[str], None]:
        """Return what prints a line; see `say_of`."""
        return say_of(self.ranks)

    def evaluate(self) -> dict[str, float]:
        """Measure the network on the test samples."""
        self.network.eval()
        return evaluate(
            self.test_call, self.feed.test, criterion=build_losses(self.options)[1], place=self.feed.place,
            ranks=self.ranks, autocast=self.precision.autocast, seed=self.options.run.seed,
        )  # fmt: skip


def say_of(ranks: Ranks) -> Callable[[str], None]:
    """Return what prints a line, past a bar, in the first process."""
    return tqdm.write if ranks.first else lambda _: None


def build_parts(options: Options, ranks: Ranks) -> Parts:
    """Build everything but what learns.

    Raises:
        UserError: for a mistake of the user's making.
        FileNotFoundError: for missing data.
    """
    seed_everything(options.run.seed)
    precision = Precision(ranks.device.type, options.train.amp_dtype if options.train.amp else None)
    shape = find_shape(options)
    if options.train.teacher:
        find_teacher(options.train.teacher)  # a wrong name shows before the data are read
    bundle = ranks.first_alone(lambda: build_data(options, shape, ranks))
    shape = Shape(info=shape.info, size=shape.size, step=shape.step, num_classes=bundle.num_classes)
    train_loader, test_loader = build_loaders(options, bundle, ranks)
    seed_everything(options.run.seed)  # the weights do not depend on what reading the data drew
    network = build_network(options, shape, ranks, say=say_of(ranks))
    if path := options.model.initial_checkpoint:
        compare_classes(path, bundle.classes, options, refuses=evaluates(options), say=say_of(ranks))
    network, train_call, test_call = wrap(
        network, ranks, sync_bn=options.train.sync_bn, compile_network=options.train.compile
    )
    place = Place(
        device=ranks.device,
        channels_last=options.train.channels_last,
        flatten_steps=options.model.temporal_flatten,
    )
    feed = Feed(
        train=train_loader,
        test=test_loader,
        place=place,
        mixer=build_mixer(options, num_classes=bundle.num_classes, size=shape.size),
        mixing_ends=options.mix.mixup_off_epoch,
    )
    return Parts(options, ranks, shape, bundle, network, train_call, test_call, feed, precision)
