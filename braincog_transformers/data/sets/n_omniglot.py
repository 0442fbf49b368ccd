"""N-Omniglot: handwritten characters, twenty drawings of each in one recording.

The first fifteen drawings of each character train and the last five test, over background and evaluation alphabets
together: BrainCog's "full" task, whose order is that of the disk.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..loading.folders import MissingData, unpaired, visible
from ..registry import EventSet, register_dataset
from ..settings import Split

_ALPHABETS = {
    "Alphabet_of_the_Magi": 20, "Anglo-Saxon_Futhorc": 29, "Arcadian": 26, "Armenian": 41, "Asomtavruli_(Georgian)": 40,
    "Balinese": 24, "Bengali": 46, "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14, "Braille": 26,
    "Burmese_(Myanmar)": 34, "Cyrillic": 33, "Early_Aramaic": 22, "Futurama": 26, "Grantha": 43, "Greek": 24,
    "Gujarati": 48, "Hebrew": 22, "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16, "Japanese_(hiragana)": 52,
    "Japanese_(katakana)": 47, "Korean": 40, "Latin": 26, "Malay_(Jawi_-_Arabic)": 40, "Mkhedruli_(Georgian)": 41,
    "N_Ko": 33, "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14, "Sanskrit": 42, "Syriac_(Estrangelo)": 23, "Tagalog": 17,
    "Tifinagh": 55,
    # the evaluation alphabets, from label 964 on
    "Angelic": 20, "Atemayar_Qelisayer": 26, "Atlantean": 26, "Aurek-Besh": 26, "Avesta": 26, "Ge_ez": 26,
    "Glagolitic": 45, "Gurmukhi": 45, "Kannada": 41, "Keble": 26, "Malayalam": 47, "Manipuri": 40, "Mongolian": 30,
    "Old_Church_Slavonic_(Cyrillic)": 45, "Oriya": 46, "Sylheti": 28, "Syriac_(Serto)": 23, "Tengwar": 25,
    "Tibetan": 42, "ULOG": 26,
}  # fmt: skip
CLASSES = tuple(
    f"{alphabet}/character{number:02d}" for alphabet, count in _ALPHABETS.items() for number in range(1, count + 1)
)
"""Under Omniglot's names: 964 characters of background alphabets, then 659 of evaluation alphabets."""

_DRAWINGS, _TRAINING_DRAWINGS = 20, 15


def _sides(root: Path, info: EventSet, split: Split) -> list[tuple[list, list[int]]]:
    official = (root / "dvs_background").is_dir()
    parts = [root / (f"dvs_{half}" if official else f"events_npy/{half}") for half in ("background", "evaluation")]
    sides, missing = [[], []], []
    for label, name in enumerate(info.classes):
        folder = next((found for part in parts if (found := _folder(part, name))), None)
        drawings = folder and _drawings(folder, official=official)
        if not drawings:
            missing.append(name)
            continue
        if len(drawings) != _DRAWINGS:
            raise UserError(f"{folder}: needs {_DRAWINGS} drawings, of which the last five test; got {len(drawings)}")
        for side, own in zip(sides, (drawings[:_TRAINING_DRAWINGS], drawings[_TRAINING_DRAWINGS:]), strict=True):
            side += [(drawing, label) for drawing in own]
    if missing:
        count = f"{len(missing)} of {len(info.classes)} characters"
        raise MissingData(f"{root}: no recordings of {count} ({', '.join(missing[:3])}, ...); complete the folders")
    return [unpaired(side) for side in sides]


def _drawings(folder: Path, *, official: bool) -> list[Any]:
    from ..events.recordings import Character, read_stretches

    files = visible(folder, "*")
    arrays, recordings, tables = (
        [path for path in files if path.suffix.lower() == ending] for ending in (".npy", ".aedat4", ".csv")
    )
    if not official:
        return [Character(path) for path in arrays]
    if len(recordings) != 1 or len(tables) != 1:
        counts = f"{len(recordings)} .aedat4 and {len(tables)} .csv"
        raise UserError(f"{folder}: needs one recording and its table of times; got {counts}")
    return [Character(recordings[0], *stretch) for stretch in read_stretches(tables[0])]


def _folder(parent: Path, name: str) -> Path | None:
    """Return a folder below another one, whatever the case and the signs between the letters of its name."""
    if (parent / name).is_dir():
        return parent / name
    alphabet, character = name.split("/")
    found = _by_letters(parent).get(_letters(alphabet))
    return found / character if found and (found / character).is_dir() else None


@lru_cache(maxsize=4)
def _by_letters(parent: Path) -> dict[str, Path]:
    return {_letters(path.name): path for path in sorted(parent.iterdir())} if parent.is_dir() else {}


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


register_dataset(
    EventSet(
        name="nomni", num_classes=1623, size=(250, 250), classes=CLASSES, samples=(24345, 8115),
        tree="NOmniglot/dvs_{background,evaluation}/<alphabet>/characterNN/{NNNN.aedat4,NNNN.csv} (or BrainCog's "
        "NOmniglot/events_npy/{background,evaluation}/<alphabet>/characterNN/NNNN_MM.npy)",
        note="15 drawings of each character train, 5 test",
        source="unpack the archives of N-Omniglot on figshare (doi.org/10.1038/s41597-022-01851-z)",
        citation="Li et al., N-Omniglot, a large-scale neuromorphic dataset for spatio-temporal sparse few-shot "
        "learning (Scientific Data 2022)",
        folders=("NOmniglot", "nomni", "N-Omniglot", "DVS/NOmniglot", "."), marks=("dvs_background", "events_npy"),
        endings=(".aedat4", ".npy"), sides=_sides,
    )
)  # fmt: skip
