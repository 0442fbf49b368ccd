"""Is a network spike-driven? What enters each of its layers and products, as observed, and what stays analog."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn

from ..errors import listed
from ..ops.operators import Operator
from .operations import KINDS, Operations, count_operations
from .output import align_table, write_json, writing

__all__ = ["Audit", "Finding", "audit", "format_audit", "judge", "name_analog", "write_audit"]


@dataclass(frozen=True)
class Finding:
    """One layer or product.

    Args:
        name: in `model.named_modules()`.
        type: "conv", "linear", "product", "matmul", "sum" or "transform".
        inputs: "binary", "ternary", "integer" or "real", as observed; of a product, what its spikes are.
        largest: largest entry that came in.
        role: "first" for what reads the data, "classifier" for the last layer, else "inner".
        planes: how many binary planes a step is read in: D or more in spiking inference, else 1.
    """

    name: str
    type: str
    inputs: str
    largest: float
    role: str
    planes: int = 1

    @property
    def meaning(self) -> str:
        """What the input means for hardware that knows spikes only."""
        if self.inputs == "binary":
            whole = " of whole numbers" if self.type in ("product", "matmul") and self.planes > 1 else " only"
            return f"additions{whole}" + f", in {self.planes} binary planes a step" * (self.planes > 1)
        if self.inputs == "ternary":
            return "additions and subtractions only"
        if self.inputs == "integer":
            return f"up to {self.largest:g} additions for an input, or {self.largest:g} binary steps"
        return "reads the data" if self.role == "first" else "multiplications"


@dataclass(frozen=True)
class Audit:
    """All findings, and what follows.

    Args:
        findings: in the order of execution.
        samples: how many samples were run.
        steps: T.
        analog: what stays analog: the operators outside of neurons that are neither sums nor scalings, and read
            something else than spikes.
        spiking: whether the network has a neuron.
    """

    findings: list[Finding]
    samples: int
    steps: int = 1
    analog: tuple[Operator, ...] = ()
    spiking: bool = True

    def inner(self, inputs: str) -> list[Finding]:
        """Return the inner layers and products with one kind of input."""
        return [finding for finding in self.findings if finding.role == "inner" and finding.inputs == inputs]

    @property
    def spike_driven(self) -> bool:
        """Whether everything between the first layer and the classifier reads zeros and ones, which may have a sign."""
        return self.spiking and not self.inner("integer") and not self.inner("real")


def audit(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]]) -> Audit:
    """Observe what enters every layer and product of a network, on data and in evaluation mode.

    Args:
        model: any network; it is left as it was.
        batches: inputs, or `(input, target, ...)` as a loader gives them.

    Raises:
        UserError: if no batch came, or the network has no layer with weights.
    """
    return judge(count_operations(model, batches))


def judge(counted: Operations) -> Audit:
    """Say what counted operations mean for the question whether a network is spike-driven."""
    roles = {counted.first.name: "first", **dict.fromkeys(counted.classifier, "classifier")}
    findings = [
        Finding(row.name, row.type, row.kind, row.largest, roles.get(row.name, "inner"), row.planes)
        for row in counted.rows
    ]
    return Audit(findings, counted.samples, counted.steps, counted.analog, counted.spiking)


def format_audit(found: Audit) -> str:
    """Lay the findings out for a terminal, the verdict last."""
    body = [[f.name, f.type, f.inputs, f"{f.largest:g}", f.meaning] for f in found.findings]
    table = align_table(["layer", "type", "input", "largest", "meaning"], body)
    inner = [finding for finding in found.findings if finding.role == "inner"]
    counts = ", ".join(f"{len(found.inner(kind))} {kind}" for kind in KINDS if kind != "ternary" or found.inner(kind))
    apart = ", apart from what stays analog" if found.analog else ""
    none = "" if found.spiking else ", it has no spiking neuron"
    verdict = f"spike-driven{apart}" if found.spike_driven else f"not spike-driven{none}"
    caption = f"what enters each layer, over {found.samples:,} samples"
    between = f"of {len(inner)} layers and products between the first layer and the classifier, {counts}"
    analog = name_analog((str(operator), operator.path) for operator in found.analog)
    stays = f"stays analog: {analog}\n" if analog else ""
    return f"{caption}\n{table}\n{stays}{verdict}: {between}{_virtual_steps(found, inner)}"


def name_analog(operators: Iterable[tuple[str, str]]) -> str:
    """Name operators, each given with its path, those of one name together with the number of their places."""
    places: dict[str, list[str]] = {}
    for name, path in operators:
        places.setdefault(name, []).append(path or "the network")
    return ", ".join(f"{name} in {listed(paths, 2)} ({len(paths)})" for name, paths in places.items())


def _virtual_steps(found: Audit, inner: list[Finding]) -> str:
    """Say how many binary steps there are, if a step is read in several planes."""
    planes = sorted({finding.planes for finding in inner} - {1})
    if not planes:
        return ""
    fewest, most = planes[0], planes[-1]
    more = f", in sums and products of spikes up to {most}" if most > fewest else ""
    return f"; {found.steps} x {fewest} = {found.steps * fewest} virtual steps: {fewest} binary planes a step{more}"


def write_audit(found: Audit, folder: str | Path) -> Path:
    """Write `audit.json`, the verdict and all findings, and return its path.

    Raises:
        UserError: the folder can't be written into.
    """
    findings = [asdict(finding) | {"meaning": finding.meaning} for finding in found.findings]
    content = {
        "spike_driven": found.spike_driven, "spiking": found.spiking, "samples": found.samples, "steps": found.steps,
        "analog": [asdict(operator) | {"meaning": str(operator)} for operator in found.analog], "findings": findings,
    }  # fmt: skip
    with writing(folder) as folder:
        path = folder / "audit.json"
        write_json(path, content)
    return path
