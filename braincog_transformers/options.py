"""Resolve the options of a run: defaults, then the recipe, then the command line, checked as a whole.

`resolve(argv)` is what the command line calls; `Options.from_dict` builds the same object in code. Nothing here
imports torch, so that help texts and mistakes are answered at once.
"""

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import option_groups as groups
from .errors import UserError, quoted, shown, unknown
from .option_entries import ENTRIES, Entry, keyword_problems
from .option_groups import GROUPS, REFUSED
from .option_recipes import read_recipe

__all__ = ["ENTRIES", "Entry", "Options", "build_parser", "named_options", "read_recipe", "resolve"]

_LONGEST = 600
"""Characters of all problems that are told at once."""
_SYNONYMS = {"native_amp": "amp"}
_POLICIES = ("none", "rand", "augmix", "original", "originalr", "v0", "v0r", "3a", "spikformer")
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


@dataclass(frozen=True, kw_only=True)
class Options:
    """Hold every option of a run, by group; building it checks each value and the rules between groups.

    Raises:
        UserError: one line with every problem found.
    """

    data: groups.DataOptions = field(default_factory=groups.DataOptions)
    model: groups.ModelOptions = field(default_factory=groups.ModelOptions)
    neuron: groups.NeuronOptions = field(default_factory=groups.NeuronOptions)
    optim: groups.OptimOptions = field(default_factory=groups.OptimOptions)
    sched: groups.SchedOptions = field(default_factory=groups.SchedOptions)
    aug: groups.AugOptions = field(default_factory=groups.AugOptions)
    mix: groups.MixOptions = field(default_factory=groups.MixOptions)
    train: groups.TrainOptions = field(default_factory=groups.TrainOptions)
    run: groups.RunOptions = field(default_factory=groups.RunOptions)
    look: groups.LookOptions = field(default_factory=groups.LookOptions)
    refused: groups.RefusedOptions = field(default_factory=groups.RefusedOptions)

    def __post_init__(self) -> None:
        problems = [text for entry in ENTRIES.values() for text in _entry_problems(entry, self.value(entry.name))]
        # The rules compare values, so they only make sense once each value is sound.
        _raise_all(problems or list(_rules(self)))

    def value(self, name: str) -> Any:
        """Return the value of an option by its name with underscores."""
        return getattr(getattr(self, ENTRIES[name].group), name)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values by name, ready for `args.yaml`."""
        values = {entry.name: self.value(entry.name) for entry in ENTRIES.values() if entry.metadata["saved"]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def changed(self) -> dict[str, Any]:
        """Return those of `to_dict` that differ from the defaults."""
        return {name: value for name, value in self.to_dict().items() if self.value(name) != ENTRIES[name].default}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Options":
        """Build options from values by name, with dashes or underscores; what is missing keeps its default.

        Raises:
            UserError: one line with every unknown name, wrong type, wrong value and broken rule.
        """
        converted, problems = _convert_all(values)
        try:
            options = cls(
                **{
                    group: part(**{name: v for name, v in converted.items() if ENTRIES[name].group == group})
                    for group, part in GROUPS.items()
                }
            )
        except UserError as error:
            problems.append(str(error))
        _raise_all(problems)
        return options


def _raise_all(problems: list[str]) -> None:
    """Raise `UserError` with the first problems, as many as fit on a line."""
    if not problems:
        return
    told = problems[:1]
    for problem in problems[1:]:
        if len("; ".join([*told, problem])) > _LONGEST:
            break
        told.append(problem)
    left = len(problems) - len(told)
    raise UserError("; ".join(told) + (f"; and {left} more problem{'s' * (left > 1)}" if left else ""))


def _entry_problems(entry: Entry, value: Any) -> Iterator[str]:
    if entry.name in REFUSED:
        if value != entry.default:
            yield f"{entry.flag} is refused: {REFUSED[entry.name]}"
        return
    found = list(entry.problems(value))
    yield from found or (keyword_problems(entry, value) if entry.name.endswith("_kwargs") else ())


def _convert_all(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values by field name in their types, and what is wrong with the others."""
    converted, problems = {}, []
    for key, value in values.items():
        name = str(key).replace("-", "_")
        name = _SYNONYMS.get(name, name)
        if name not in ENTRIES:
            problems.append(str(unknown("option", str(key), ENTRIES)))
        elif name in converted:
            problems.append(f"{ENTRIES[name].flag} is given twice, under two spellings")
        else:
            try:
                converted[name] = ENTRIES[name].convert("" if (name, value) == ("aa", "none") else value)
            except UserError as error:
                problems.append(str(error))
    return converted, problems


_ENERGY = tuple(name for name in ENTRIES if name.startswith("energy_"))
_OF_METHOD = {"energy_whole_as_spikes": "spikingformer", "energy_pre_pool": "sdt", "energy_count_head": "sdt"}


def _rules(options: Options) -> Iterator[str]:
    """Yield each broken rule between options."""
    aug, mix, train, run = options.aug, options.mix, options.train, options.run
    for name in ("scale", "ratio"):
        limits = getattr(aug, name)
        if limits and limits[0] > limits[1]:
            yield f"--{name} needs the smaller value first; got {limits[0]} {limits[1]}"
    if aug.aa and aug.aa.split("-")[0] not in _POLICIES:
        yield str(unknown("--aa policy", aug.aa, _POLICIES))
    if aug.event_augment and "none" in aug.event_augment and len(aug.event_augment) > 1:
        yield f"--event-augment none excludes others; got {shown(' '.join(aug.event_augment))}"
    if aug.aug_repeats > 1 and aug.no_aug:
        yield "--aug-repeats would repeat the same picture under --no-aug; give one of them"
    image_mix = bool(mix.mixup or mix.cutmix or mix.cutmix_minmax)
    if image_mix and not mix.mixup_prob:
        yield "--mixup and --cutmix have no effect while --mixup-prob is 0; give --mixup-prob 1"
    if image_mix and (given := _given(options, ("mix_up", "cut_mix", "event_mix"))):
        yield f"{given}: mixes what --mixup/--cutmix has mixed; give one of the two kinds"
    if options.data.polarity_sum and mix.cutmix_noise:
        yield "--cutmix-noise would leave the third channel of --polarity-sum no sum; give one of them"
    if options.sched.lr_noise and options.sched.lr_noise_std > 1000 * options.sched.lr_noise_pct:
        yield "--lr-noise-std is so far beyond --lr-noise-pct that no noise would be found within; lower it"
    if train.tet_loss and options.model.temporal_flatten:
        yield "--tet-loss needs the outputs of all steps, and --temporal-flatten leaves one step"
    if options.model.temporal_flatten and options.model.rand_step:
        yield "--temporal-flatten leaves one step, so that --rand-step has nothing to choose"
    if run.device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?|\d+", run.device):
        yield f"--device takes cpu, cuda, cuda:1, or the number of a GPU; got {quoted(run.device, 60)}"
    if run.experiment and (Path(run.experiment) == Path() or ".." in Path(run.experiment).parts):
        yield f"--experiment must name a folder below --output; got {quoted(run.experiment, 60)}"
    weights = run.eval_checkpoint or run.resume or options.model.initial_checkpoint or options.model.pretrained
    if run.eval and not weights:
        yield "--eval needs weights: --eval_checkpoint, --resume, --initial-checkpoint or --pretrained"
    yield from _look_rules(options.look, options)
    yield from _frame_rules(options)
    yield from _source_rules(options)
    yield from _distillation_rules(options)


def _look_rules(look: groups.LookOptions, options: Options) -> Iterator[str]:
    if not (look.analyze or look.report) and (given := _given(options, _ENERGY)):
        yield f"{given}: without effect as long as neither --analyze nor --report is given"
    if look.analyze_batches and not (look.analyze or look.audit or look.report):
        yield "--analyze-batches: without effect as long as none of --analyze, --audit and --report is given"
    foreign = tuple(name for name, method in _OF_METHOD.items() if method != look.energy_method)
    if given := _given(options, foreign):
        yield f"{given}: belongs to the other --energy-method; leave it out"


def _frame_rules(options: Options) -> Iterator[str]:
    data, kind = options.data, options.data.frames
    if kind != "count" and (given := _given(options, ("frames_by", "remainder", "clip_counts", "event_mix"))):
        yield f"{given}: for counts of events only, which --frames {kind} does not hold; leave it out"
    if kind != "surface" and (given := _given(options, ("surface_tau",))):
        yield f"{given}: belongs to --frames surface; leave it out"
    if kind == "voxel" and (given := _given(options, ("merge_polarity", "polarity_sum"))):
        yield f"{given}: --frames voxel has one channel, in which the polarity is the sign; leave it out"
    if data.merge_polarity and data.polarity_sum:
        yield "--polarity-sum appends to two polarities, and --merge-polarity leaves one; give one of them"


_OF_SOURCES = ("train_split", "val_split", "class_map", "input_key", "target_key")
_OF_STREAMS = ("train_num_samples", "val_num_samples")


def _source_rules(options: Options) -> Iterator[str]:
    from .data.settings import PREFIXES, STREAMED

    data, prefix = options.data, options.data.dataset_source.partition("/")[0].lower()
    if not data.dataset_source:
        if given := _given(options, _OF_SOURCES + _OF_STREAMS):
            yield f"{given}: without effect as long as no --dataset-source is named"
        return
    if data.dataset != "imnet":
        yield f"--dataset-source: photos are read so under --dataset imnet, not {data.dataset}"
    if prefix not in PREFIXES or not data.dataset_source.partition("/")[2]:
        yield f"--dataset-source takes {', '.join(f'{name}/NAME' for name in PREFIXES)}; got {data.dataset_source!r}"
    elif prefix == "torch" and (given := _given(options, ("class_map", "input_key", "target_key"))):
        yield f"{given}: sets of torchvision have their own labels; leave it out"
    if prefix not in STREAMED and (given := _given(options, _OF_STREAMS)):
        yield f"{given}: for streams ({', '.join(STREAMED)}) only; leave it out"
    if prefix in STREAMED and (given := _given(options, ("aug_repeats", "use_multi_epochs_loader"))):
        yield f"{given}: a stream is read once in an epoch, by processes of its own; leave it out"


def _distillation_rules(options: Options) -> Iterator[str]:
    train = options.train
    given = _given(options, ("teacher_checkpoint", "distill", "distill_alpha", "distill_tau"))
    if given and not train.teacher:
        yield f"{given}: without effect as long as no --teacher is named"
    if train.distill == "hard" and train.distill_tau != ENTRIES["distill_tau"].default:
        yield "--distill-tau is the temperature of --distill soft; hard distillation has none"
    if train.teacher and options.model.encode != "direct":
        yield f"--teacher sees the network's own batch, which --encode {options.model.encode} leaves unnormalised"


def _data_problems(options: Options) -> Iterator[str]:
    """Yield an unknown data set, and the options that its kind of data has no use for."""
    from .data.catalog import DATASETS
    from .data.settings import SEEDED

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
    elif not info.splits and (given := _given(options, own)):
        yield f"{given}: {name} has its own test split; leave it out"
    elif split not in SEEDED and options.data.split_seed:
        yield f"--split-seed: split {split} has no seed; choose --split {' or '.join(SEEDED)}, or leave it out"
    for kind in _ONLY_FOR:
        if kind != info.kind and (given := _given(options, _ONLY_FOR[kind])):
            yield f"{given}: for {kind} data only; {name} holds {info.kind} data"
    if info.kind == "sequence" and (given := _given(options, _NOT_FOR_SEQUENCES)):
        yield f"{given}: needs height and width, and {name} holds sequences, which have none; leave it out"


def _launch_problems(options: Options) -> Iterator[str]:
    """Yield a rank that no launcher has set: each launcher that passes one also sets LOCAL_RANK, which counts."""
    rank = options.run.local_rank
    if rank and os.environ.get("LOCAL_RANK") != str(rank):
        yield f"--local_rank {rank} needs a launcher that sets LOCAL_RANK; start with torchrun and leave the option out"


def _given(options: Options, names: Sequence[str]) -> str:
    """List those of the options that differ from their defaults, as on the command line."""
    return ", ".join(ENTRIES[name].flag for name in names if options.value(name) != ENTRIES[name].default)


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
    values, wrong = _convert_all(recipe | given)
    _raise_all(problems + wrong)
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
    _raise_all(problems)
    _raise_all([*_data_problems(options), *_launch_problems(options)])
    return options


def _read(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return the recipe's options, those of the command line, and what is wrong in the recipe."""
    parser = build_parser()
    arguments, problems = _spelled(argv, parser._option_string_actions)
    _raise_all(problems)
    given, rest = parser.parse_known_args(arguments)
    _raise_all([f"argument {quoted(text, 100)} belongs to no option" for text in rest])
    given = {name: value for name, value in vars(given).items() if name in ENTRIES}
    recipe: dict[str, Any] = {}
    if given.get("config"):
        recipe, problems = _convert_all(read_recipe(given["config"]))
        broken = {name: list(_entry_problems(ENTRIES[name], recipe[name])) for name in recipe.keys() - given.keys()}
        problems += [problem for name in recipe for problem in broken.get(name, ())]
        problems = [f"{shown(given['config'])}: {problem}" for problem in problems]
        recipe = {name: value for name, value in recipe.items() if not broken.get(name)}
    problems += [
        f"{ENTRIES[name].flag} is empty; {what}, or leave it out"
        for name, what in _NAMED.items()
        if given.get(name) == "" and not recipe.get(name)  # an empty one undoes the recipe's
    ]
    return recipe, given, problems
