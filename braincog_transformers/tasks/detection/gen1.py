"""Prophesee's Gen1: a recording `*_td.dat` of 60 s, and labelled moments in `*_bbox.npy`, each read as one sample.

Names and rules are those of Prophesee's toolbox: boxes of the first half second are skipped, as are boxes with a side
below 10 or a diagonal below 30 pixels. A sample is the events of the time in front of a moment.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data.formats.arrays import npy_array
from ...data.formats.opening import file_bytes, named
from ...data.loading.folders import MissingData, visible
from ...data.readers import DatStretch, dat_start
from ...errors import UserError, listed
from .annotations import Annotations, Boxes, gather, left_out_or_refused

__all__ = ["BoxRule", "read_gen1"]

_RECORDING, _LABELS = "_td.dat", "_bbox.npy"
_HEAD = 1 << 16
_FIELDS = ("x", "y", "w", "h", "class_id")


@dataclass(frozen=True)
class BoxRule:
    """Which boxes count.

    Args:
        skip_us: those up to this time are skipped.
        side: smallest width and height in pixels.
        diagonal: smallest diagonal in pixels.
        skip_bad_boxes: leave out empty boxes and those outside of the sensor, however many they are.
    """

    skip_us: int
    side: float
    diagonal: float
    skip_bad_boxes: bool = False


def read_gen1(
    folder: Path, *, sensor: tuple[int, int], window_us: int, rule: BoxRule, classes: tuple[str, ...]
) -> tuple[Annotations, list[DatStretch], list[str]]:
    """Read the labels of all recordings in a folder.

    Args:
        folder: of one split, with recordings at any depth.
        sensor: height and width.
        window_us: events of so many microseconds in front of a moment belong to it.
        rule: which boxes count; a moment without one is left out.
        classes: names, in the order of `class_id`.

    Returns:
        The annotations, the stretch of a recording that belongs to each picture, and lines about boxes left out.

    Raises:
        UserError: for missing, damaged or contradictory files, in one line with the file.
    """
    recordings = visible(folder, f"**/*{_RECORDING}") if folder.is_dir() else []
    if not recordings:
        raise MissingData(f"{folder}: no recordings (*{_RECORDING}); unpack the data set there, or name another place "
                          "with --data-dir")  # fmt: skip
    labels = {path: path.with_name(path.name.removesuffix(_RECORDING) + _LABELS) for path in recordings}
    orphans = [one for one in visible(folder, f"**/*{_LABELS}") if one not in set(labels.values())]
    if alone := [path for path, of in labels.items() if not of.exists()] or orphans:
        other = _LABELS if alone[0].name.endswith(_RECORDING) else _RECORDING
        raise MissingData(
            f"{alone[0]}: there is no *{other} beside it; {len(alone)} files of {folder} lack the other one"
        )
    stretches, owners, columns, lines = [], [], [], []
    for recording in recordings:
        with named(recording):
            _check_heading(recording)
        moments, found, problems = _moments(labels[recording], sensor, rule, len(classes))
        lines += problems
        at, place = np.unique(moments, return_inverse=True)
        owners.append(place + len(stretches))
        columns.append(found)
        stretches += [DatStretch(recording, max(0, int(t) - window_us), int(t)) for t in at]
    if not stretches:
        raise UserError(f"{folder}: no box is left by the rules for time and size (skip_us, min_side, min_diagonal)")
    boxes = Boxes(*(np.concatenate(column) for column in zip(*(vars(one).values() for one in columns), strict=True)))
    names = [f"{one.path.name}@{one.end_us}" for one in stretches]
    ids, sizes = np.arange(1, len(names) + 1), np.tile(sensor, (len(names), 1))
    known = tuple(enumerate(classes, start=1))  # as Prophesee's toolbox numbers them for pycocotools
    return gather(str(folder), names, ids, sizes, np.concatenate(owners), boxes, known), stretches, lines


def _check_heading(recording: Path) -> None:
    with open(recording, "rb") as file:
        dat_start(file.read(_HEAD), recording.stat().st_size)


def _moments(path: Path, sensor: tuple[int, int], rule: BoxRule, count: int) -> tuple[np.ndarray, Boxes, list[str]]:
    """Return the time of each box that counts, the boxes, and a line about those that were left out."""
    with named(path):
        rows = npy_array(file_bytes(path))
        names = rows.dtype.names or ()
        time = next((name for name in ("t", "ts") if name in names), None)
        if time is None or rows.ndim != 1 or (lacking := [name for name in _FIELDS if name not in names]):
            what = f"lacks {listed(lacking, 5)}" if names and time and rows.ndim == 1 else f"is {str(rows.dtype)[:80]}"
            raise UserError(f"must be a structured array (N,) with t or ts, x, y, w, h and class_id; this one {what}")
        if odd := [name for name in (time, *_FIELDS) if rows.dtype[name].kind not in "iuf" or rows.dtype[name].shape]:
            raise UserError(f"its field {odd[0]} must be numbers; got {str(rows.dtype[odd[0]])[:40]}")
        t = rows[time].astype(np.float64)
        corner = np.stack([rows[name].astype(np.float64) for name in _FIELDS[:4]], 1)
        labels = rows["class_id"].astype(np.float64)
        for what, values in (("a time", t), ("a box", corner), ("a class", labels)):
            if not np.isfinite(values).all():
                raise UserError(f"{what} is no finite number; fetch it anew")
        if (np.diff(t) < 0).any():
            raise UserError(f"time goes backwards {int((np.diff(t) < 0).sum())} times in {len(t)} boxes; fetch it anew")
        if len(t) and (t.min() < 0 or t.max() >= 1 << 32):
            raise UserError("has times that are no microseconds of a DAT recording, whose clock has 32 bits")
        wrong = (labels < 0) | (labels >= count) | (labels != np.trunc(labels))
        if wrong.any():
            raise UserError(f"has a class_id of {labels[wrong][0]:g}; those of this set are 0 to {count - 1}")
    limits = np.array(sensor[::-1], float)
    empty = (corner[:, 2:] <= 0).any(1)
    outside = (corner[:, :2] >= limits).any(1) | (corner[:, :2] + corner[:, 2:] <= 0).any(1)
    problems = [
        (i, f"at {t[i]:.0f} us, [x, y, w, h] = {corner[i].round(2).tolist()}, which is "
         + ("empty" if empty[i] else f"outside of the sensor of {sensor[1]} x {sensor[0]} pixels"))
        for i in np.flatnonzero(empty | outside).tolist()
    ]  # fmt: skip
    lines = left_out_or_refused(str(path), problems, len(t), skip=rule.skip_bad_boxes)
    kept = (t > rule.skip_us) & (corner[:, 2:] >= rule.side).all(1) & ~(empty | outside)
    kept &= np.hypot(corner[:, 2], corner[:, 3]) >= rule.diagonal
    corner = corner[kept]
    crowd = np.zeros(len(corner), bool)
    return t[kept], Boxes(corner, labels[kept].astype(np.int64), crowd, corner[:, 2] * corner[:, 3]), lines
