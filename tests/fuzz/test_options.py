"""Random command lines are resolved or refused in one short line; nothing of torch is needed for it."""

import random

from braincog_transformers import cli
from braincog_transformers.cli.parser import build_parser
from braincog_transformers.recipe import ENTRIES

NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "0.5",
    "1e-3",
    "1e999",
    "nan",
    "-inf",
    "0x10",
    "010",
    "1_0",
    "9" * 30,
    "9" * 5000,
    "½",
    "٣",
]
TEXTS = [
    *("", " ", "x", "none", "None", "True", "digits", "spikformer", "spikformer_digits.x", "cuda:1", "adamw", "é日本"),
    *(
        "a\0b",
        "\ud800",
        "a\nb",
        "\x1b[31m",
        "../..",
        "~",
        "/dev/null",
        "-1",
        "--",
        "-",
        "=",
        "a=b=c",
        "x" * 300,
        "y" * 5000,
    ),
    *(
        "depth=2",
        "depth={[]:1}",
        "a=" + "[" * 300,
        "a=" + "(" * 2000,
        "a=1",
        "=1",
        "1=1",
        "pool='x'",
        "checkpoint_path=x",
    ),
    *("rand-m9", "wds/x", "hfds/", "tag/", "0", "%s", "{}", "$HOME", "*"),
]
DATA = ["digits", "ndigits", "cifar10", "dvsc10", "imnet", "shd", "smnist", "nothing"]
# these end the program with what they print
ENDS = {"--help", "-h", "--list-models", "--data-info", "--identify", "--export", "--search"}


def _value(draw: random.Random, name: str) -> str:
    entry = ENTRIES.get(name)
    kinds = [NUMBERS, TEXTS]
    if entry is not None and entry.metadata["choices"]:
        kinds.append(list(entry.metadata["choices"]))
    if entry is not None and entry.kind in (int, float):
        kinds += [NUMBERS, [str(draw.randint(-5, 10**6)), f"{draw.uniform(-2, 2):.3g}"]]
    return draw.choice(draw.choice(kinds))


def _spelt(draw: random.Random, flag: str) -> str:
    """Return the flag, often as it is, else with a slip."""
    place = draw.randrange(len(flag))
    slips = [flag.replace("-", "_"), flag + "x", flag[:place] + flag[place + 1 :], flag.upper(), flag[:place] + "é"]
    return flag if draw.random() < 0.85 else draw.choice(slips)


def _argv(draw: random.Random, flags: list[str]) -> list[str]:
    argv = ["--dataset", draw.choice(DATA)] if draw.random() < 0.8 else []
    for _ in range(draw.randint(0, 6)):
        flag = draw.choice(flags)
        name = flag.lstrip("-").replace("-", "_").removeprefix("no_")
        argv.append(_spelt(draw, flag))
        values = [_value(draw, name) for _ in range(draw.choice([0, 1, 1, 1, 2, 3]))]
        if values and draw.random() < 0.2:
            argv[-1] += "=" + values.pop()
        argv += values
    return argv


def test_a_random_command_line_is_resolved_or_refused_in_one_short_line(fuzz_cases, monkeypatch, capsys):
    draw = random.Random(13)
    flags = sorted(set(build_parser()._option_string_actions) - ENDS)
    monkeypatch.setattr(cli, "_run", lambda options: None)
    monkeypatch.setattr(cli, "_check_names", lambda *_: None)
    counts = {0: 0, 2: 0}
    for _ in range(fuzz_cases * 5):
        argv = [argument for argument in _argv(draw, flags) if argument.partition("=")[0].replace("_", "-") not in ENDS]
        status = cli.main(argv)
        error = capsys.readouterr().err
        assert status in counts, argv
        assert len(error.splitlines()) == (status == 2), argv
        assert len(error) < 900, argv
        error.encode()
        counts[status] += 1
    assert min(counts.values()) > 0
