"""Changed recipes are resolved or refused in one short line that names the file."""

import random
import re

import pytest

from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError
from braincog_transformers.recipe import ENTRIES

BASE = "dataset: digits\nmodel: spikformer_digits\nlr: 1e-3\nscale: [0.5, 1.0]\namp: true\nmodel_kwargs: [depth=1]\n"
VALUES = [
    *("1", "-1", "010", "1:30", "0x1f", "1_0", "1e3", ".inf", ".nan", "NaN", "9" * 400, "0b1", "+.5", "1." + "0" * 300),
    *(
        "yes",
        "off",
        "null",
        "~",
        "''",
        '"\\0"',
        '"\\ud800"',
        '"\\UFFFFFFFF"',
        "2020-13-45",
        "2001-01-01",
        "=",
        "<<",
        "|",
        ">-",
    ),
    *(
        "!!int abc",
        "!!float x",
        "!!bool maybe",
        "!!timestamp foo",
        "!!binary ~",
        "!!null x",
        "!!set {a}",
        "!foo 1",
        "!!omap []",
    ),
    *(
        "!!python/name:os.system",
        "!!python/object/apply:os.system [x]",
        "!!str 1",
        "!!map {a: 1}",
        "!!seq [1]",
        "!!pairs [a: 1]",
    ),
    *(
        "[1, 2]",
        "[[1], 2]",
        "{a: 1}",
        "[" * 40,
        "{a: " * 12 + "1" + "}" * 12,
        "&a [*a]",
        "*b",
        "&b 3",
        "- 1",
        "? x",
        "# x",
        "%x",
    ),
    *("depth=2", "['depth={[]:1}']", "é", "日本　語", "\u2028", "'x", '"x', "@x", "`x", "a: b", "a\tb", "x" * 5000),
]
SNIPS = [
    "\t",
    "\r\n",
    "\n",
    ":",
    " ",
    "- ",
    "---\n",
    "...\n",
    "&x ",
    "*x",
    "!!int ",
    "{",
    "}",
    "[",
    "]",
    '"',
    "'",
    "#",
    "%YAML 1.1\n",
    "<<: *x\n",
]


def _changed(draw: random.Random) -> str:
    text = BASE
    names = list(ENTRIES)
    for _ in range(draw.randint(1, 3)):
        lines = text.split("\n")
        kind = draw.randrange(5)
        place = draw.randrange(len(text) + 1)
        if kind <= 1:
            text = f"{text}{draw.choice(names)}: {draw.choice(VALUES)}\n"
        elif kind == 2:
            number = draw.randrange(len(lines))
            lines[number] = lines[number].partition(":")[0] + ": " + draw.choice(VALUES)
            text = "\n".join(lines)
        elif kind == 3:
            text = text[:place] + draw.choice(SNIPS) + text[place + draw.randint(0, 3) :]
        else:
            text += f"{draw.choice(VALUES)}: {draw.choice(VALUES)}\n"
    return text


def _bytes(draw: random.Random, text: str) -> bytes:
    content = text.encode(
        draw.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"]), errors="replace"
    )
    if draw.random() < 0.2 and content:
        place = draw.randrange(len(content))
        content = content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
    return content


def test_a_changed_recipe_is_resolved_or_refused_in_one_short_line(fuzz_cases, tmp_path):
    draw, path = random.Random(13), tmp_path / "recipe.yaml"
    counts = {"resolved": 0, "refused": 0}
    for _ in range(fuzz_cases * 3):
        content = _bytes(draw, _changed(draw))
        path.write_bytes(content)
        try:
            resolve(["-c", str(path)])
            counts["resolved"] += 1
        except UserError as error:
            line = str(error)
            assert re.search(r"recipe\.yaml|^--|^unknown data set", line), (content, line)
            assert "\n" not in line, content
            assert len(line) < 900, content
            counts["refused"] += 1
    assert min(counts.values()) > 0


def test_aliases_never_make_a_recipe_slow_or_its_message_long(tmp_path):
    path = tmp_path / "bomb.yaml"
    for depth in (3, 9, 30):
        lines = ["suffix: &a0 [1,1,1,1,1,1,1,1,1]"]
        names = [name for name in ENTRIES if name not in ("suffix", "config")]
        lines += [f"{names[i]}: &a{i + 1} [{','.join([f'*a{i}'] * 3)}]" for i in range(depth)]
        path.write_text("\n".join(lines))
        with pytest.raises(UserError, match=r"bomb\.yaml") as caught:
            resolve(["-c", str(path)])
        assert len(str(caught.value)) < 900
