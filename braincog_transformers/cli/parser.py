"""Read the command line: build the parser from the options' fields, and resolve defaults, recipe and arguments.

Nothing here imports torch, so that help texts and mistakes are answered at once.
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import UserError, quoted, shown, unknown
from ..recipe import ENTRIES, GROUPS, Entry, Options, read_recipe
from ..recipe.options import convert_all, entry_problems, given_options, raise_all

__all__ = ["build_parser", "named_options", "resolve"]

_NAMED = {
    "config": "name a recipe",
    "resume": "name a checkpoint or the folder of a run",
    "initial_checkpoint": "name a checkpoint",
    "eval_checkpoint": "name a checkpoint or the folder of a run",
    "teacher": "name a model of timm's",
    "teacher_checkpoint": "name a checkpoint",
    "dataset_source": "name a source",
}
"""Empty on the command line, these are mostly variables that a script has not set."""
_ONLY_FOR = {
    "event": ("event_size", "frames_by", "remainder", "cache_dir", "no_cache", "temporal_flatten", "event_augment",
              "rand_aug", "mix_up", "cut_mix", "event_mix", "polarity_sum", "label_order",
              "frames", "surface_tau", "clip_counts", "event_resize", "frame_norm", "merge_polarity", "skip_bad"),
    "image": ("img_size", "crop_pct", "mean", "std", "interpolation", "encode", "scale", "ratio", "color_jitter",
              "aa", "reprob", "remode", "recount", "train_interpolation", "aug_repeats", "teacher", "max_pixels"),
}  # fmt: skip
_NOT_FOR_SEQUENCES = ("hflip", "vflip", "cutmix", "cutmix_minmax")


def _data_problems(options: Options) -> Iterator[str]:
    """Yield an unknown data set, and the options that its kind of data has no use for."""
    from ..data.registry import DATASETS
    from ..data.settings import SEEDED

    name = options.data.dataset
    if name not in DATASETS:
        yield str(unknown("data set", name, DATASETS))
        return
    info = DATASETS[name]
    split = options.data.split or next(iter(info.splits), None)
    validates = split == "valid" and info.validation
    own = ("split_seed", "train_portion") if validates else ("split", "split_seed", "train_portion")
    if split == "valid" and not validates:
        yield f"--split valid: {name} has no validation split; leave it out"
    elif not info.splits and (given := given_options(options, own)):
        yield f"{given}: {name} has its own test split; leave it out"
    elif split not in SEEDED and options.data.split_seed:
        yield f"--split-seed: split {split} has no seed; choose --split {' or '.join(SEEDED)}, or leave it out"
    for kind in _ONLY_FOR:
        if kind != info.kind and (given := given_options(options, _ONLY_FOR[kind])):
            yield f"{given}: for {kind} data only; {name} holds {info.kind} data"
    if info.kind == "sequence" and (given := given_options(options, _NOT_FOR_SEQUENCES)):
        yield f"{given}: needs height and width, and {name} holds sequences, which have none; leave it out"


def _launch_problems(options: Options) -> Iterator[str]:
    """Yield a rank that no launcher has set: each launcher that passes one also sets LOCAL_RANK, which counts."""
    rank = options.run.local_rank
    if rank and os.environ.get("LOCAL_RANK") != str(rank):
        yield f"--local_rank {rank} needs a launcher that sets LOCAL_RANK; start with torchrun and leave the option out"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser from the fields of the groups; what isn't given is absent from its result."""
    parser = _Parser(
        prog="main.py",
        usage="main.py [options]",
        description="Train, evaluate and look at spiking transformers.",
        epilog="Each switch has its opposite (--amp, --no-amp; --no-aug, --aug), to undo a recipe. "
        "Dashes and underscores in names are the same.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--list-models", nargs="?", const="", metavar="PATTERN", help="print the networks of this package and stop"
    )
    parser.add_argument(
        "--data-info",
        action="store_true",
        help="say what the --dataset is, what must lie where and, with --data-dir, what lies there; without --dataset "
        "print a table of all; and stop",
    )
    parser.add_argument("--identify", metavar="FILE", help="say which networks a checkpoint fits, and stop")
    text = "write the fused network with --eval_checkpoint's weights as .onnx, .pt2 or .aot.pt2 (compiled), and stop"
    parser.add_argument("--export", metavar="FILE", help=text)
    titles = {group: parser.add_argument_group(cls.__doc__) for group, cls in GROUPS.items()}
    for entry in ENTRIES.values():
        _add(titles[entry.group], entry)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise UserError(message.removeprefix("argument "))


def _add(group: argparse._ArgumentGroup, entry: Entry) -> None:
    aliases = entry.metadata["aliases"]
    names = [name for name in aliases if not name.startswith("--")] + [entry.flag]
    names += [name for name in aliases if name.startswith("--") and name not in names]
    text = entry.metadata["help"]
    if entry.kind is bool:
        opposite = argparse.SUPPRESS if entry.default is False else f"the opposite of {entry.flag}"
        text += " (default)" if entry.default else ""
        group.add_argument(*names, dest=entry.name, action="store_true", help=text)
        group.add_argument(entry.opposite, dest=entry.name, action="store_false", help=opposite)
        return
    if entry.default not in (None, ""):
        default = " ".join(f"{one:g}" for one in entry.default) if entry.many else entry.default
        text += f" (default: {default})"
    if choices := [choice for choice in entry.metadata["choices"] if choice]:
        text += f" [{', '.join(choices)}]"
    metavar = {int: "N", float: "X", str: "TEXT"}[entry.kind]
    group.add_argument(*names, dest=entry.name, nargs="+" if entry.many else None, metavar=metavar, help=text)


def _spelled(argv: Sequence[str], known: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the arguments with known spellings of the options' names, and what is wrong with the others."""
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


def named_options(argv: Sequence[str]) -> dict[str, Any]:
    """Return the options that the recipe of `-c` and the command line name, in their types and not checked further.

    Raises:
        UserError: one line with every unknown name and wrong type.
    """
    recipe, given, problems = _read(argv)
    values, wrong = convert_all(recipe | given)
    raise_all(problems + wrong)
    return values


def resolve(argv: Sequence[str]) -> Options:
    """Resolve the options of a command line: defaults, then the recipe of `-c`, then the arguments.

    Raises:
        UserError: one line with every problem found.
    """
    recipe, given, problems = _read(argv)
    try:
        options = Options.from_dict(recipe | given)
    except UserError as error:
        problems.append(str(error))
    raise_all(problems)
    raise_all([*_data_problems(options), *_launch_problems(options)])
    return options


def _read(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return the recipe's options, those of the command line, and what is wrong in the recipe."""
    parser = build_parser()
    arguments, problems = _spelled(argv, parser._option_string_actions)
    raise_all(problems)
    given, rest = parser.parse_known_args(arguments)
    raise_all([f"argument {quoted(text, 100)} belongs to no option" for text in rest])
    given = {name: value for name, value in vars(given).items() if name in ENTRIES}
    recipe: dict[str, Any] = {}
    if given.get("config"):
        recipe, problems = convert_all(read_recipe(given["config"]))
        broken = {name: list(entry_problems(ENTRIES[name], recipe[name])) for name in recipe.keys() - given.keys()}
        problems += [problem for name in recipe for problem in broken.get(name, ())]
        problems = [f"{shown(given['config'])}: {problem}" for problem in problems]
        recipe = {name: value for name, value in recipe.items() if not broken.get(name)}
    problems += [
        f"{ENTRIES[name].flag} is empty; {what}, or leave it out"
        for name, what in _NAMED.items()
        if given.get(name) == "" and not recipe.get(name)  # an empty one undoes the recipe's
    ]
    return recipe, given, problems
