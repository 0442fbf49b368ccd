"""Hold the options of a run, checked as a whole: each value, and the rules between options."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, quoted, shown, unknown
from .entries import ENTRIES, REFUSED, Entry, keyword_problems
from .groups import GROUPS, AllOptions

__all__ = ["Options", "convert_all", "entry_problems", "given_options", "raise_all"]

_LONGEST = 600
"""Characters of all problems that are told at once."""
_SYNONYMS = {"native_amp": "amp"}
_POLICIES = ("none", "rand", "augmix", "original", "originalr", "v0", "v0r", "3a", "spikformer")


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
        """Build options from values by name, with dashes or underscores; what is missing keeps its default.

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
    told = problems[:1]
    for problem in problems[1:]:
        if len("; ".join([*told, problem])) > _LONGEST:
            break
        told.append(problem)
    left = len(problems) - len(told)
    raise UserError("; ".join(told) + (f"; and {left} more problem{'s' * (left > 1)}" if left else ""))


def entry_problems(entry: Entry, value: Any) -> Iterator[str]:
    if entry.name in REFUSED:
        if value != entry.default:
            yield f"{entry.flag} is refused: {REFUSED[entry.name]}"
        return
    found = list(entry.problems(value))
    yield from found or (keyword_problems(entry, value) if entry.name.endswith("_kwargs") else ())


def convert_all(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
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
    if image_mix and (given := given_options(options, ("mix_up", "cut_mix", "event_mix"))):
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
    for needed in ("dataset_source", "teacher"):
        dependent = [entry.name for entry in ENTRIES.values() if entry.metadata["needs"] == needed]
        if not options.value(needed) and (given := given_options(options, dependent)):
            yield f"{given}: without effect as long as no {ENTRIES[needed].flag} is named"
    yield from _analysis_rules(options)
    yield from _frame_rules(options)
    yield from _distillation_rules(options)


def _analysis_rules(options: Options) -> Iterator[str]:
    asked = options.analysis
    if not (asked.analyze or asked.report) and (given := given_options(options, _ENERGY)):
        yield f"{given}: without effect as long as neither --analyze nor --report is given"
    if asked.analyze_batches and not (asked.analyze or asked.audit or asked.report):
        yield "--analyze-batches: without effect as long as none of --analyze, --audit and --report is given"
    foreign = tuple(name for name, method in _OF_METHOD.items() if method != asked.energy_method)
    if given := given_options(options, foreign):
        yield f"{given}: belongs to the other --energy-method; leave it out"


def _frame_rules(options: Options) -> Iterator[str]:
    data, kind = options.data, options.data.frames
    if kind != "count" and (given := given_options(options, ("frames_by", "remainder", "clip_counts", "event_mix"))):
        yield f"{given}: for counts of events only, which --frames {kind} does not hold; leave it out"
    if kind != "surface" and (given := given_options(options, ("surface_tau",))):
        yield f"{given}: belongs to --frames surface; leave it out"
    if kind == "voxel" and (given := given_options(options, ("merge_polarity", "polarity_sum"))):
        yield f"{given}: --frames voxel has one channel, in which the polarity is the sign; leave it out"
    if data.merge_polarity and data.polarity_sum:
        yield "--polarity-sum appends to two polarities, and --merge-polarity leaves one; give one of them"


def _distillation_rules(options: Options) -> Iterator[str]:
    train = options.train
    if train.distill == "hard" and train.distill_tau != ENTRIES["distill_tau"].default:
        yield "--distill-tau is the temperature of --distill soft; hard distillation has none"
    if train.teacher and options.model.encode != "direct":
        yield f"--teacher sees the network's own batch, which --encode {options.model.encode} leaves unnormalised"


def given_options(options: Options, names: Sequence[str]) -> str:
    """List those of the options that differ from their defaults, as on the command line."""
    return ", ".join(ENTRIES[name].flag for name in names if options.value(name) != ENTRIES[name].default)
