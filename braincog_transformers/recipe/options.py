"""Hold the options of a run, checked as a whole: each value, and the rules between options."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, quoted, shown, unknown
from .fields import Entry
from .groups import ENTRIES, GROUPS, AllOptions

__all__ = [
    "OF_ZOO", "TRAINING_FREE", "Options", "arguments", "convert_all", "entry_problems", "given_options", "keywords",
    "broken_rules", "raise_all",
]  # fmt: skip

_LONGEST = 600
"""Characters of one message with all problems."""
_SYNONYMS = {"native_amp": "amp"}
_POLICIES = ("none", "rand", "augmix", "original", "originalr", "v0", "v0r", "3a", "spikformer")
_SEARCH = tuple(name for name in ENTRIES if name.startswith("search_"))
_ENERGY = tuple(name for name in ENTRIES if name.startswith("energy_"))
_OF_METHOD = {"energy_whole_as_spikes": "spikingformer", "energy_pre_pool": "sdt", "energy_count_head": "sdt"}
_OF_LABELS = (
    *("num_classes", "rand_step", "distilled", "mixup", "cutmix", "cutmix_minmax", "mixup_prob"),
    *("loss_fn", "smoothing", "tet_loss", "teacher"),
    *("report", "visualize", "tsne", "conf_mat", "mem_dist", "analyze", "doctor", "audit"),
)
_OF_EVENTS = frozenset(
    name for name, entry in ENTRIES.items() if entry.group == "data" and entry.metadata["kinds"] == ("event",)
)
_OF_ALL_TASKS = frozenset((
    *("dataset", "data_dir", "batch_size", "validation_batch_size_multiplier", "workers", "pin_mem", "no_prefetcher"),
    *("use_multi_epochs_loader", "model", "pretrained", "initial_checkpoint", "model_kwargs"),
    *("bn_tf", "bn_momentum", "bn_eps", "amp", "amp_dtype", "compile", "channels_last", "sync_bn", "dist_bn"),
    *("dist_backend", "model_ema", "model_ema_force_cpu", "model_ema_decay", "max_steps"),
))
_OF_BACKBONES = frozenset((
    *(name for name, entry in ENTRIES.items() if entry.group == "neuron"),
    *("step", "drop_path", "grad_checkpointing", "pack_spikes", "integer_products", "img_size", "mean", "std", "hflip"),
))
_OF_TASK = {
    "track": frozenset(),
    "depth": frozenset(("img_size", "hflip")),
    "pose": frozenset(("step", "event_size", "hflip")),
    "detect": _OF_BACKBONES | (_OF_EVENTS - {"skip_bad", "label_order"}),
    "segment": _OF_BACKBONES | {"color_jitter", "max_pixels"},
}
"""Options of data, model, augmentation and training that a task other than classification takes besides."""
TRAINING_FREE = ("rate", "sta")
"""Methods of --convert that train nothing."""
_OF_TRAINING = (
    *(name for name, entry in ENTRIES.items() if entry.group in ("optim", "sched", "aug", "mix")),
    *("drop", "drop_path", "bn_momentum", "grad_checkpointing", "smoothing", "teacher", "amp", "amp_dtype", "compile"),
    *("sync_bn", "dist_bn", "model_ema", "model_ema_force_cpu", "model_ema_decay", "max_steps", "recovery_interval"),
    *("checkpoint_hist", "save_images", "eval_metric", "resume", "no_resume_opt", "use_multi_epochs_loader"),
)
OF_ZOO = (
    *(name for name, entry in ENTRIES.items() if entry.group == "neuron"),
    *("encode", "layer_by_layer", "rand_step", "as_released", "distilled", "pack_spikes", "integer_products"),
    *("tet_loss", "tet_lambda", "tet_means", "pretrain", "spiking_inference", "doctor", "eval"),
)
"""Options of networks that spike from the start."""
# timm takes these for itself, and would read a checkpoint by other rules
_OF_TIMM = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}


@dataclass(frozen=True, kw_only=True)
class Options(AllOptions):
    """Hold every option of a run, by group; building it checks each value and the rules between groups.

    Raises:
        UserError: one line with every problem found.
    """

    def __post_init__(self) -> None:
        problems = [text for entry in ENTRIES.values() for text in entry_problems(entry, self.value(entry.name))]
        # The rules compare values, so they only make sense once each value is sound.
        raise_all(problems or list(_rules(self)))

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
        """Build options from values by name, with dashes or underscores; missing ones keep their defaults.

        Raises:
            UserError: one line with every unknown name, wrong type, wrong value and broken rule.
        """
        converted, problems = convert_all(values)
        try:
            options = cls(
                **{
                    group: part(**{name: v for name, v in converted.items() if ENTRIES[name].group == group})
                    for group, part in GROUPS.items()
                }
            )
        except UserError as error:
            problems.append(str(error))
        raise_all(problems)
        return options


def raise_all(problems: list[str]) -> None:
    """Raise `UserError` with the first problems, as many as fit on a line."""
    if not problems:
        return
    named = problems[:1]
    for problem in problems[1:]:
        if len("; ".join([*named, problem])) > _LONGEST:
            break
        named.append(problem)
    left = len(problems) - len(named)
    raise UserError("; ".join(named) + (f"; and {left} more problem{'s' * (left > 1)}" if left else ""))


def entry_problems(entry: Entry, value: Any) -> list[str]:
    """Return all that is wrong with the value of one option."""
    found = list(entry.problems(value))
    return found or (list(_keyword_problems(entry, value)) if entry.name.endswith("_kwargs") else [])


def convert_all(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the valid values by field name, in their types, and the problems of the others."""
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


def keywords(texts: Sequence[str] | None) -> dict[str, Any]:
    """Turn `KEY=VALUE` texts into keyword arguments; a value that is not a Python literal is a text.

    Raises:
        UserError: for a name that is given twice, or a literal that Python can't build.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        if name in found:
            raise UserError(f"{shown(name, 60)} is given twice")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
        except (TypeError, MemoryError, RecursionError) as error:
            raise UserError(f"{quoted(text, 100)} is no value that Python can build ({shown(error, 80)})") from None
    return found


def _keyword_problems(entry: Entry, texts: Sequence[str] | None) -> Iterator[str]:
    """Yield the reasons why an option's texts are not keyword arguments."""
    if odd := [text for text in texts or () if not re.fullmatch(r"[A-Za-z_]\w*=.+", text)]:
        yield f"{entry.flag} takes KEY=VALUE; got {quoted(odd[0], 100)}"
        return
    try:
        given = keywords(texts)
    except UserError as error:
        yield f"{entry.flag}: {error}"
        return
    for name, value in given.items() if entry.name == "model_kwargs" else ():
        if name in _OF_TIMM:
            yield f"{entry.flag} {name}: belongs to timm, not to the network (--initial-checkpoint reads weights)"
        elif value is None:
            yield f"{entry.flag} {name}=None: timm reads None as the network's default; leave it out"


def arguments(values: Mapping[str, Any]) -> list[str]:
    """Write options and their values as arguments of the command line."""
    found = []
    for name, value in values.items():
        entry = ENTRIES[name]
        if entry.kind is bool:
            found += [] if value is None else [entry.flag if value else entry.opposite]
        elif isinstance(value, (list, tuple)):
            found += [entry.flag, *map(str, value)]
        elif value is not None:
            # a text may begin with a dash
            found += [f"{entry.flag}={value}"] if str(value).startswith("-") else [entry.flag, str(value)]
    return found


def given_options(options: Options, names: Sequence[str]) -> str:
    """List those of the options that differ from their defaults, as on the command line."""
    return ", ".join(ENTRIES[name].flag for name in names if options.value(name) != ENTRIES[name].default)


def broken_rules(options: Options, rules: Iterable[tuple[object, Sequence[str], str]]) -> Iterator[str]:
    """Yield each broken rule. A rule is a condition, options that keep their defaults if it holds, and the reason."""
    for holds, names, reason in rules:
        if holds and (given := given_options(options, names)):
            yield f"{given}: {reason}"


def _rules(options: Options) -> Iterator[str]:
    """Yield each broken rule between options."""
    yield from broken_rules(options, _conditions(options))
    yield from (problem for holds, problem in _contradictions(options) if holds)
    aug, run = options.aug, options.run
    for name in ("scale", "ratio"):
        if (limits := getattr(aug, name)) and limits[0] > limits[1]:
            yield f"--{name} needs the smaller value first; got {limits[0]} {limits[1]}"
    if aug.aa and aug.aa.split("-")[0] not in _POLICIES:
        yield str(unknown("--aa policy", aug.aa, _POLICIES))
    if aug.event_augment and "none" in aug.event_augment and len(aug.event_augment) > 1:
        yield f"--event-augment none excludes others; got {shown(' '.join(aug.event_augment))}"
    if run.device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?|\d+", run.device):
        yield f"--device takes cpu, cuda, cuda:1, or the number of a GPU; got {quoted(run.device, 60)}"
    if run.experiment and (Path(run.experiment) == Path() or ".." in Path(run.experiment).parts):
        yield f"--experiment must name a folder below --output; got {quoted(run.experiment, 60)}"


def _conditions(options: Options) -> tuple[tuple[object, Sequence[str], str], ...]:
    """Return the rules about options that have no effect, for `broken_rules`."""
    data, asked, made = options.data, options.analysis, options.convert
    free = made.convert in TRAINING_FREE or (made.convert and made.calibrate_only)
    said = f"--convert {made.convert}" + " --calibrate-only" * made.calibrate_only
    return (
        (not made.convert, _needing("convert"), "without effect as long as no --convert is given"),
        (made.convert, ("sync_bn",), "replaces normalisations that --convert looks for; leave it out"),
        (made.convert, OF_ZOO, "for networks that spike from the start, not for --convert; leave it out"),
        (made.convert in TRAINING_FREE, ("calibrate_only",), f"{said}: the method trains nothing; leave it out"),
        (free and not options.run.eval_checkpoint, _OF_TRAINING, f"{said} trains nothing; leave it out"),
        (not options.task.task, _needing("task"), "without effect as long as no --task is given"),
        *_conditions_of_task(options),
        (not data.dataset_source, _needing("dataset_source"), "without effect as long as no --dataset-source is named"),
        (not options.train.teacher, _needing("teacher"), "without effect as long as no --teacher is named"),
        (not options.train.pretrain, _needing("pretrain"), "without effect without --pretrain"),
        (options.train.pretrain, _OF_LABELS,
         f"without effect in --pretrain {options.train.pretrain}, which learns from pixels alone; leave it out"),
        (options.train.pretrain, ("sync_bn", "compile"),
         "not for --pretrain, whose convolutions and normalisations see visible patches only; leave it out"),
        (_mixes_images(options), ("mix_up", "cut_mix", "event_mix"),
         "mixes what --mixup/--cutmix has mixed; give one of the two kinds"),
        (not (asked.analyze or asked.report or made.convert), _ENERGY,
         "without effect as long as neither --analyze nor --report is given"),
        (not (asked.analyze or asked.audit or asked.report or made.convert), ("analyze_batches",),
         "without effect as long as none of --analyze, --audit and --report is given"),
        (True, _SEARCH, "without effect as long as --search is not given"),
        (True, [name for name, method in _OF_METHOD.items() if method != asked.energy_method],
         "belongs to the other --energy-method; leave it out"),
        (data.frames != "count", ("frames_by", "remainder", "clip_counts", "event_mix"),
         f"for counts of events only, which --frames {data.frames} does not hold; leave it out"),
        (data.frames != "surface", ("surface_tau",), "belongs to --frames surface; leave it out"),
        (data.frames == "voxel", ("merge_polarity", "polarity_sum"),
         "--frames voxel has one channel, in which the polarity is the sign; leave it out"),
    )  # fmt: skip


def _conditions_of_task(options: Options) -> Iterator[tuple[object, Sequence[str], str]]:
    """Yield the rules about options that a task does not take, for `broken_rules`."""
    task = options.task.task
    if not task:
        return
    taken = _OF_ALL_TASKS | _OF_TASK[task]
    groups = ("data", "model", "neuron", "aug", "mix", "train", "convert")
    unused = [name for name, entry in ENTRIES.items() if entry.group in groups and name not in taken]
    unused += ["tsne", "conf_mat", "doctor", "spiking_inference", "eval_metric"]
    unused += [name for name, entry in ENTRIES.items() if task not in (entry.metadata["tasks"] or (task,))]
    yield True, unused, f"without effect in --task {task}; leave it out"


def _contradictions(options: Options) -> tuple[tuple[object, str], ...]:
    """Return conditions under which options contradict each other, and what to change."""
    data, model, aug, mix, train = options.data, options.model, options.aug, options.mix, options.train
    sched, run, look, made = options.sched, options.run, options.analysis, options.convert
    weights = run.eval_checkpoint or run.resume or model.initial_checkpoint or model.pretrained
    untrained = made.convert in TRAINING_FREE or made.calibrate_only
    return (
        (made.convert and untrained and not weights,
         f"--convert {made.convert} needs a trained network: --initial-checkpoint FILE or --pretrained"),
        (train.teacher == "source" and not made.convert, "--teacher source is the network that --convert converts"),
        (train.teacher == "source" and train.teacher_checkpoint,
         "--teacher source has its weights from --initial-checkpoint; leave --teacher-checkpoint out"),
        (aug.aug_repeats > 1 and aug.no_aug,
         "--aug-repeats would repeat the same picture under --no-aug; give one of them"),
        (_mixes_images(options) and not mix.mixup_prob,
         "--mixup and --cutmix have no effect while --mixup-prob is 0; give --mixup-prob 1"),
        (data.polarity_sum and mix.cutmix_noise,
         "--cutmix-noise changes the third channel of --polarity-sum, which is then no sum; give one of them"),
        (data.merge_polarity and data.polarity_sum,
         "--polarity-sum appends to two polarities, and --merge-polarity leaves one; give one of them"),
        (sched.lr_noise and sched.lr_noise_std > 1000 * sched.lr_noise_pct,
         "--lr-noise-std is so far beyond --lr-noise-pct that no noise within the limit is ever drawn; lower it"),
        (train.pretrain and run.eval_metric == "top5",
         "--eval-metric top5 needs labels; --pretrain ranks its epochs by the loss"),
        (train.tet_loss and model.temporal_flatten,
         "--tet-loss needs the outputs of all steps, and --temporal-flatten leaves one step"),
        (model.temporal_flatten and model.rand_step,
         "--temporal-flatten leaves one step, so that --rand-step has nothing to choose"),
        (run.eval and not weights,
         "--eval needs weights: --eval_checkpoint, --resume, --initial-checkpoint or --pretrained"),
        (run.spiking_inference and not (run.eval or run.eval_checkpoint or look.analyze or look.audit),
         "--spiking-inference is for a trained network; give --eval, --eval_checkpoint, --analyze or --audit"),
        (run.spiking_inference and train.compile,
         "--spiking-inference follows single operations, which --compile hides; give one of them"),
        (train.distill == "hard" and train.distill_tau != ENTRIES["distill_tau"].default,
         "--distill-tau is the temperature of --distill soft; hard distillation has none"),
        (train.teacher and model.encode != "direct",
         f"--teacher sees the network's own batch, which --encode {model.encode} leaves unnormalised"),
    )  # fmt: skip


def _needing(needed: str) -> list[str]:
    return [entry.name for entry in ENTRIES.values() if entry.metadata["needs"] == needed]


def _mixes_images(options: Options) -> bool:
    return bool(options.mix.mixup or options.mix.cutmix or options.mix.cutmix_minmax)
