"""Lines of model code: our file for each family beside the official repository's files at the commit that we follow.

    python -m benchmarks.code_lines [--repositories DIR]

Blank lines, comments and docstrings don't count. DIR holds git clones as OWNER/NAME, bare or not; what is not there is
left out of the table. Official repositories often have a copy of the network for each data set, so the largest file
stands beside the sum of all; files of equal content count once.
"""

import argparse
import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import braincog_transformers
from braincog_transformers.models import REGISTERED

from .harness import markdown

__all__ = ["FAMILIES", "Family", "count", "rows"]

_PACKAGE = Path(braincog_transformers.__file__).parent
_SILENT = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
    tokenize.ENCODING,
}


class Family(NamedTuple):
    """Where a network is written down.

    Args:
        name: what its paper calls it.
        ours: our files in `models`, without ".py".
        repository: official one, "owner/name" on GitHub.
        commit: the one that we follow.
        files: its files that define the network.
    """

    name: str
    ours: tuple[str, ...]
    repository: str
    commit: str
    files: tuple[str, ...]


def _model_of(*folders: str) -> tuple[str, ...]:
    return tuple(f"{folder}/model.py" for folder in folders)


_CIFAR, _EVENTS = ("cifar10", "cifar100"), ("cifar10-dvs", "dvs128-gesture")
_V3, _V3_COMMIT = "BICLab/Spike-Driven-Transformer-V3", "00fcd1fd5d9c65fe9a26579ed512a20c6a303deb"
_CML, _CML_COMMIT = "zhouchenlin2096/Spikingformer-CML", "8e5121367cd9a92a2564a8f1d8a62079dafc8dc6"
_LARGE, _HARDVS = "SDT_V3/Classification/Model_Large", "SDT_V3/DVS/Hardvs"
FAMILIES = (
    Family(
        "Spikformer", ("spikformer",), "ZK-Zhou/spikformer", "621268981827af47aa666c1b5f774de4281d90ad",
        _model_of("cifar10", "cifar10dvs", "imagenet"),
    ),
    Family(
        "Spikingformer", ("spikingformer",), "zhouchenlin2096/Spikingformer",
        "4378623b82bb1999b137244950ad648566e148fd", _model_of(*_CIFAR, *_EVENTS, "imagenet"),
    ),
    Family(
        "CML-Spikformer, CML-Spikingformer", (), _CML, _CML_COMMIT,
        ("cifar10/CML_Spikformer.py", *_model_of(*_CIFAR, *_EVENTS, "imagenet")),
    ),
    Family(
        "Spike-driven Transformer", ("sdt",), "BICLab/Spike-Driven-Transformer",
        "3faa82272eb499e4d56ea77707d4536e7c69a54b", ("model/spikeformer.py", "module/ms_conv.py", "module/sps.py"),
    ),
    Family(
        "Spike-driven Transformer V2", ("sdt_v2",), "BICLab/Spike-Driven-Transformer-V2",
        "35f245f4f79acf1a2b3ef22698c58ab05c1ede33", ("classification/models.py",),
    ),
    Family("Spike-driven Transformer V2, events", (), _V3, _V3_COMMIT, (f"{_HARDVS}/models.py",)),
    Family(
        "Spike-driven Transformer V3, base and events", ("sdt_v3",), _V3, _V3_COMMIT,
        ("SDT_V3/Classification/Model_Base/models.py", f"{_HARDVS}/models_Q_scaling_dvs.py"),
    ),
    Family(
        "Spike-driven Transformer V3, large", ("sdt_v3_large",), _V3, _V3_COMMIT, (f"{_LARGE}/spikformer.py",)
    ),
    Family(
        "Spike-driven Transformer V3, masked pre-training", ("masked",), _V3, _V3_COMMIT,
        (f"{_LARGE}/MAE_SDT.py", f"{_LARGE}/encoder.py"),
    ),
    Family(
        "QKFormer", ("qkformer",), "zhouchenlin2096/QKFormer", "c2a00e8e54538e76f5954614a60c1d53824bbee9",
        (*_model_of(*_CIFAR, *_EVENTS), "imagenet/qkformer.py"),
    ),
    Family(
        "SpikingResformer", ("spikingresformer",), "xyshi2000/SpikingResformer",
        "3f751275dedfda8b0a4ed0bf50e85e02a4335f3e", ("models/spikingresformer.py", "models/submodules/layers.py"),
    ),
    Family(
        "SGLFormer", ("sglformer",), "ZhangHanN1/SGLFormer", "4821b133c92d2e3baf1a6e4892bd6475f30b98ff",
        (
            *(f"{folder}/sglformer.py" for folder in (*_CIFAR, *_EVENTS)),
            *("imagenet/sglformer_ima.py", "imagenet/sglformer_ima2.py", "imagenet/models_vit.py"),
        ),
    ),
    Family(
        "TIM", ("tim",), "BrainCog-X/Brain-Cog", "3998fd504c1a03376c2e96f14ddf98aee9f5370a",
        (
            *("examples/TIM/models/TIM.py", "examples/TIM/models/spikformer_braincog_DVS.py"),
            *("examples/TIM/models/spikformer_braincog_SHD.py", "examples/TIM/utils/MyNode.py"),
            "examples/TIM/utils/MyGrad.py",
        ),
    ),
    Family(
        "Spikeformer", ("spikeformer",), "Loydian/Spikeformer", "cacc58d328a7dcbb00636d4b82b1a0abc22def0d",
        tuple(f"{d}/{f}.py" for d in ("dvscifar10", "dvsgesture", "imagenet") for f in ("spikeformer", "neuron")),
    ),
    Family(
        "STSA", ("stsa",), "ppppps/STSA_4_Asyn_SNN", "1ba7464cce5ab949c441dff684527a0d23e20695",
        ("models/STSTransformer_dvs128.py", "models/neuron.py"),
    ),
    Family(
        "OST", ("ost",), "songxt3/OST", "49108bb483ee2335fff5437e80cf75aa31736c7c",
        _model_of("cifar", "imagenet", "dvs_cifar10", "dvs_128_gesture"),
    ),
    Family(
        "AutoST", ("autost",), "AlexandreWANG915/AutoST", "7e7ca450c19c1037aa67c7fcc0ff2832135a59b3", ("model.py",)
    ),
)  # fmt: skip


def count(text: str) -> int:
    """Return how many lines of a module hold code."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            documented.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documented)


def _official(family: Family, clone: Path) -> list[int]:
    """Return the lines of each official file, equal ones once."""
    texts = {}
    for file in family.files:
        command = ["git", "-C", str(clone), "show", f"{family.commit}:{file}"]
        texts[subprocess.run(command, check=True, capture_output=True, text=True).stdout] = file
    return [count(text) for text in texts]


def _ours(names: tuple[str, ...]) -> int:
    return sum(count((_PACKAGE / "models" / f"{name}.py").read_text(encoding="utf-8")) for name in names)


def rows(repositories: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield a row for each family: its name, our lines, all official ones, those of the largest file, the source."""
    for family in FAMILIES:
        clone, source = repositories / family.repository, f"{family.repository} at {family.commit[:7]}"
        lines = _official(family, clone) if clone.is_dir() else None
        ours = f"{_ours(family.ours):,}" if family.ours else "in those above"
        theirs = (f"{sum(lines):,} in {len(lines)}", f"{max(lines):,}") if lines else ("no clone", "")
        yield family.name, ours, *theirs, source


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repositories", type=Path, default=Path("repositories"), help="folder of OWNER/NAME")
    repositories = parser.parse_args(argv).repositories
    print(markdown(["network", "ours", "official, in files", "largest file", "official code"], rows(repositories)))
    networks = {entry.cls.__module__.rpartition(".")[2] for entry in REGISTERED.values()}
    networks.update(name for family in FAMILIES for name in family.ours)
    shared = {
        "layers": [*(_PACKAGE / "layers").glob("*.py")],
        "models, without the networks": [p for p in (_PACKAGE / "models").glob("*.py") if p.stem not in networks],
    }
    for name, paths in shared.items():
        print(f"\nshared by all networks, {name}: {sum(count(path.read_text('utf-8')) for path in paths):,} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
