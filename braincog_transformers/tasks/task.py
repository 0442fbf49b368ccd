"""What a task is: data, loss, what is measured, and pictures. One loop trains all of them (`training.loop`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import timm
from torch import nn

from ..checkpoints import load_content, read_checkpoint
from ..data import DatasetInfo
from ..data.build import DataBundle
from ..errors import UserError, quoted, shown, unknown
from ..models.task_networks import TASK_NETWORKS
from ..recipe import Options, keywords
from ..recipe.values import fits

__all__ = ["Meter", "Task", "TaskSettings"]

Call = Callable[[Any], Any]
"""A network in evaluation mode, or its compiled form: maps an input to what the network puts out."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Base of the options of a task that --task-kwargs gives; a subclass checks its values in `__post_init__`."""


class Meter(ABC):
    """Measures a network on test samples, batch by batch; each rank has one, and sees its share of the samples."""

    @abstractmethod
    def update(self, call: Call, x: Any, target: Any) -> None:
        """Run the network on a batch, and note how good it is.

        Args:
            call: the network; each of its calls is without gradients.
            x: as the test set gives it, on the device.
            target: likewise.
        """

    @abstractmethod
    def compute(self, gather: Callable[[dict], list[dict]]) -> dict[str, float]:
        """Return the figures by name, over all ranks.

        Args:
            gather: maps this rank's plain values (no tensors of a GPU) to those of all ranks; each rank calls it once.
        """

    def write(self, folder: Path) -> list[Path]:
        """Write predictions to files, and return their paths; called on the first rank, after `compute`."""
        return []


class Task(ABC):
    """One task with the options of a run; a subclass says what belongs to it.

    Args:
        options: of the run.

    Raises:
        UserError: for --task-kwargs that the task does not have or take, or a data set of another task.
    """

    name: ClassVar[str]
    """As `--task` names it."""
    metric: ClassVar[str]
    """The figure of `Meter.compute` that ranks epochs."""
    decreasing: ClassVar[bool] = False
    """Whether a smaller metric is a better one."""
    settings_type: ClassVar[type[TaskSettings]] = TaskSettings
    """Options of --task-kwargs."""
    takes_target: ClassVar[bool] = False
    """Whether training calls the network with the target too, `network(x, target)`, as torchvision's detectors are."""
    test_batch: ClassVar[int | None] = None
    """Test samples in a batch, where it can't be the batch size of the run."""

    def __init__(self, options: Options):
        self.options = options
        self.settings = self._read_settings(keywords(options.task.task_kwargs))

    def _read_settings(self, given: Mapping[str, Any]) -> TaskSettings:
        known = get_type_hints(self.settings_type)
        if strange := [name for name in given if name not in known]:
            names = ", ".join(field.name for field in fields(self.settings_type)) or "none"
            raise UserError(f"--task-kwargs {', '.join(strange)}: {self.name} has no such option; it has {names}")
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        for name, value in given.items():
            if not fits(value, known[name]):
                kind = known[name].__name__ if isinstance(known[name], type) else known[name]
                raise UserError(f"--task-kwargs {name}: takes {kind}; got {quoted(value, 60)}")
        try:
            return self.settings_type(**given)
        except UserError as error:
            raise UserError(f"--task-kwargs {error}") from error

    # Data

    @abstractmethod
    def build_data(self, info: DatasetInfo, data_dir: Path) -> DataBundle:
        """Read the data set, or make it where it is a generated scene.

        Samples are pairs (input, target), each a tensor or a `runtime.batch.Batch`. The training samples may draw from
        the generators of Python, NumPy and torch, which the loader seeds for each sample. `DataBundle.watched` holds
        inputs of the network where test samples are something else, as whole videos.

        Raises:
            UserError: for missing or damaged data, in one line with the file.
        """

    # Network

    def build_network(self, bundle: DataBundle, create: Callable[..., nn.Module], say: Callable[[str], object]) -> Any:
        """Build the network, with the weights of --initial-checkpoint.

        The default is for a network of a paper that is made for the task (`models.task_networks`).

        Args:
            bundle: the data.
            create: builds --model, a network of the zoo, with the options of the run; called with further arguments of
                its constructor (`features_only=True`). Not needed here.
            say: prints a line.

        Raises:
            UserError: for a network of another task, arguments that it does not have, or weights that don't fit.
        """
        options = self.options.model
        found = TASK_NETWORKS.get(options.model.partition(".")[0])
        if found is None or found.task != self.name:
            known = [name for name, one in TASK_NETWORKS.items() if one.task == self.name]
            raise unknown(f"network of --task {self.name}", options.model, known)
        arguments = self.network_arguments(bundle)
        further = keywords(options.model_kwargs)
        if twice := sorted(further.keys() & arguments.keys()):
            raise UserError(f"--model-kwargs {twice[0]}: follows from the data and other options; leave it out")
        try:
            network = timm.create_model(options.model, pretrained=options.pretrained, **arguments, **further)
        except UserError:
            raise
        except Exception as error:  # of any kind: what a constructor makes of values that it doesn't check
            given = f"--model-kwargs {shown(' '.join(options.model_kwargs or ()), 150)}: " if further else ""
            raise UserError(f"{given}--model {options.model} can't be built ({shown(error, 200)})") from error
        self.load_initial(network, say)
        return network

    def network_arguments(self, bundle: DataBundle) -> dict[str, Any]:
        """Return the arguments of the network's constructor that follow from data and options."""
        return {}

    def load_initial(self, network: nn.Module, say: Callable[[str], object]) -> None:
        """Load the weights of --initial-checkpoint, official or ours, if it is given."""
        if path := self.options.model.initial_checkpoint:
            say(load_content(network, read_checkpoint(path), path, ema=self.options.run.use_ema))

    # Training and measuring

    @abstractmethod
    def criterion(self) -> nn.Module:
        """Return the loss: a module that maps what the network puts out in training, and the target, to a scalar, the
        mean over the batch."""

    @abstractmethod
    def meter(self, bundle: DataBundle) -> Meter:
        """Return a new meter."""

    # Pictures

    def draw(self, call: Call, bundle: DataBundle, folder: Path, to_device: Callable) -> Iterator[Path]:
        """Draw predictions on some test samples as PNG, one file after the other.

        Args:
            call: the network in evaluation mode, without gradients.
            bundle: the data.
            folder: of the run.
            to_device: maps the input and target of a batch to the device.
        """
        yield from ()
