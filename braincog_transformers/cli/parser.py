"""Read the command line: build the parser from the options' fields, and resolve defaults, recipe and arguments.

Nothing here imports torch, so that help texts and mistakes are answered at once.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError, quoted, shown, unknown
from ..plugins import installed, load_plugins
from ..recipe import ENTRIES, GROUPS, Entry, Options, published, read_recipe
from ..recipe.options import broken_rules, convert_all, entry_problems, given_options, raise_all

__all__ = ["ACTIONS", "Command", "build_parser", "read", "resolve"]

ACTIONS: dict[str, dict[str, Any]] = {
    "list_models": dict(nargs="?", const="", metavar="PATTERN", help="list the networks, and stop"),
    "data_info": dict(
        action="store_true",
        help="describe --dataset and count its samples in --data-dir; without --dataset list all sets; and stop",
    ),
    "search": dict(
        nargs="?", const="autost", metavar="FAMILY", help="search for an architecture of autost, untrained, and stop"
    ),
    "identify": dict(nargs="?", const="", metavar="FILE", help="list the networks that a checkpoint fits, and stop"),
    "export": dict(metavar="FILE", help="write the --eval_checkpoint as .onnx, .pt2 or .aot.pt2 (compiled), and stop"),
}
"""What is done instead of a training, with argparse's arguments."""
_NETWORKS = {"track": "stnet", "depth": "spike_transformer_depth", "pose": "spiking_pose_transformer_34"}
"""The published network of a task that has its own, where none is named."""


def _data_problems(options: Options) -> Iterator[str]:
    """Yield an unknown data set, and options that have no effect on its kind of data."""
    from ..data.registry import DATASETS
    from ..data.settings import SEEDED

    name = options.data.dataset
    if name not in DATASETS:
        yield str(unknown("data set", name, DATASETS))
        return
    info, task = DATASETS[name], options.task.task
    if info.task != task:
        yield _other_task(name, info.task, task, [one.name for one in DATASETS.values() if one.task == task])
        return
    split = options.data.split or next(iter(info.splits), None)
    validates = split == "valid" and info.validation
    own = ("split_seed", "train_portion") if validates else ("split", "split_seed", "train_portion")
    if split == "valid" and not validates:
        yield f"--split valid: {name} has no validation split; leave it out"
    elif not info.splits and (given := given_options(options, own)):
        yield f"{given}: {name} has its own test split; leave it out"
    elif split not in SEEDED and options.data.split_seed:
        yield f"--split-seed: split {split} has no seed; choose --split {' or '.join(SEEDED)}, or leave it out"
    flat = f"needs height and width, and {name} holds sequences, which have none; leave it out"
    kind = getattr(info, "holds", info.kind)
    if task and task not in ("detect", "segment"):  # their options are listed by name
        return
    for kinds in (("event",), ("image",), ("event", "image")):
        unfit = [entry.name for entry in ENTRIES.values() if entry.metadata["kinds"] == kinds]
        only = f"for {kinds[0]} data only; {name} holds {kind} data"
        yield from broken_rules(options, [(kind not in kinds, unfit, only if len(kinds) == 1 else flat)])


def _other_task(name: str, its: str, task: str, fitting: list[str]) -> str:
    """Say what to change where a data set is for another task than the one that is named."""
    if not task:
        return f"--dataset {name} is for --task {its}; give that too"
    return f"--dataset {name} is not for --task {task}; it reads {' and '.join(fitting) or 'none of the data sets'}"


def _launch_problems(options: Options) -> Iterator[str]:
    """Yield a rank that differs from LOCAL_RANK, which every launcher sets and training uses."""
    rank = options.run.local_rank
    if rank and os.environ.get("LOCAL_RANK") != str(rank):
        yield f"--local_rank {rank} needs a launcher that sets LOCAL_RANK; start with torchrun and leave the option out"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser from the fields of the groups. Its result holds only the options that were given."""
    parser = _Parser(
        prog="main.py",
        usage="main.py [options]",
        description="Train, evaluate and analyse spiking transformers.",
        epilog="Each switch has its opposite (--amp, --no-amp; --no-aug, --aug), which undoes a recipe. "
        "Names may have dashes or underscores.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    actions = parser.add_mutually_exclusive_group()
    for name, facts in ACTIONS.items():
        actions.add_argument("--" + name.replace("_", "-"), **facts)
    titles = {group: parser.add_argument_group(cls.__doc__) for group, cls in GROUPS.items()}
    for entry in ENTRIES.values():
        _add(titles[entry.group], entry)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise UserError(message.removeprefix("argument "))


def _add(group: argparse._ArgumentGroup, entry: Entry) -> None:
    names = sorted([entry.flag, *entry.metadata["aliases"]], key=lambda name: name.startswith("--"))
    text = entry.metadata["help"]
    if entry.kind is bool:
        opposite = argparse.SUPPRESS if entry.default is False else f"the opposite of {entry.flag}"
        text += " (default)" if entry.default else ""
        group.add_argument(*names, dest=entry.name, action="store_true", help=text)
        group.add_argument(entry.opposite, dest=entry.name, action="store_false", help=opposite)
        return
    if entry.default not in (None, ""):
        text += f" (default: {entry.default})"
    if choices := [choice for choice in entry.metadata["choices"] if choice]:
        text += f" [{', '.join(choices)}]"
    metavar = {int: "N", float: "X", str: "TEXT"}[entry.kind]
    nargs, action = "+" if entry.many else None, "extend" if entry.metadata["repeats"] else "store"
    group.add_argument(*names, dest=entry.name, nargs=nargs, action=action, metavar=metavar, help=text)


def _spelled(argv: Sequence[str], known: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the arguments with the options' names in known spellings, and the problems of the others."""
    spelling = {name.replace("_", "-"): name for name in known}
    arguments, problems = [], []
    for argument in argv:
        name, equals, value = argument.partition("=")
        if not name.startswith("--") or name == "--":
            arguments.append(argument)
        elif (name := name.replace("_", "-")) in spelling:
            arguments.append(spelling[name] + equals + value)
        else:
            problems.append(str(unknown("option", argument.partition("=")[0], known)))
    return arguments, problems


@dataclass(frozen=True)
class Command:
    """What a command line and its recipe say.

    Args:
        action: name of the action in `ACTIONS`, or None to train or evaluate.
        argument: of the action.
        values: options of the recipe and the arguments, by name, not yet checked together.
        problems: of options that are not in `values`.
    """

    action: str | None
    argument: Any
    values: dict[str, Any]
    problems: list[str]

    def named(self) -> dict[str, Any]:
        """Return the options that are named, in their types and not checked further.

        Raises:
            UserError: one line with every unknown name and wrong type.
        """
        values, wrong = convert_all(self.values)
        raise_all(self.problems + wrong)
        return values

    def options(self, start: Callable[[Sequence[str]], object] = load_plugins) -> Options:
        """Resolve all options: defaults, then the recipe of `-c`, then the arguments.

        Args:
            start: called with the plugins where the name of the data set may be theirs.

        Raises:
            UserError: one line with every problem found.
        """
        from ..data.registry import DATASETS
        from ..data.settings import source_problems

        problems = list(self.problems)
        try:
            options = Options.from_dict(self.values)
        except UserError as error:
            problems.append(str(error))
        raise_all(problems)
        plugins = options.run.plugin or ()
        if plugins or (options.data.dataset not in DATASETS and installed()):
            start(plugins)
        raise_all([*_data_problems(options), *source_problems(options), *_launch_problems(options)])
        return options


def resolve(argv: Sequence[str]) -> Options:
    """Resolve the options of a command line.

    Raises:
        UserError: one line with every problem found.
    """
    return read(argv).options()


def read(argv: Sequence[str]) -> Command:
    """Read a command line, and the recipe that it names.

    Raises:
        UserError: for an argument that can't be read, or a recipe.
    """
    parser = build_parser()
    arguments, problems = _spelled(argv, parser._option_string_actions)
    raise_all(problems)
    found, rest = parser.parse_known_args(arguments)
    raise_all([f"argument {quoted(text, 100)} belongs to no option" for text in rest])
    given = vars(found)
    action, argument = next(((name, given.pop(name)) for name in ACTIONS if name in given), (None, None))
    recipe: dict[str, Any] = {}
    if given.get("config"):
        recipe, problems = convert_all(read_recipe(given["config"]))
        for name in [name for name in recipe if name not in given]:
            if found := entry_problems(ENTRIES[name], recipe[name]):
                problems += found
                del recipe[name]
        problems = [f"{shown(given['config'])}: {problem}" for problem in problems]
    elif given.get("task") and "dataset" not in given and f"{given['task']}_scene" in published():
        recipe, _ = convert_all(read_recipe(f"{given['task']}_scene"))  # a task alone runs on its own scene
    problems += [
        f"{entry.flag} is empty; name {entry.metadata['named']}, or leave it out"
        for name, entry in ENTRIES.items()
        # an empty one undoes the recipe's
        if entry.metadata["named"] and given.get(name) == "" and not recipe.get(name)
    ]
    values = recipe | given
    if (network := _NETWORKS.get(str(values.get("task")))) is not None:
        values.setdefault("model", network)
    return Command(action, argument, values, problems)
