"""Annotations of COCO's format and of Gen1, as real files hold them, and each mistake in one line with the file."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from braincog_transformers.data.loading.folders import MissingData
from braincog_transformers.errors import UserError
from braincog_transformers.tasks.detection.annotations import compare_categories
from braincog_transformers.tasks.detection.coco import read_coco, require_pictures
from braincog_transformers.tasks.detection.gen1 import BoxRule, read_gen1

CONTENT = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
        {"id": 3, "file_name": "sub/b.png", "width": 20, "height": 20},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 5, "bbox": [2, 3, 4.5, 5], "area": 11, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 41.0, 30], "iscrowd": 1},
        {"id": 9, "image_id": 7, "category_id": 5, "bbox": [10, 10, 5, 6]},
    ],
    "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
}

TEXTS = [("ts", "<u8"), *((name, "S4") for name in "xywh"), ("class_id", "u1")]


def written(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def changed(change):
    content = json.loads(json.dumps(CONTENT))
    change(content)
    return content


def test_pictures_and_boxes_are_read(tmp_path):
    found, lines = read_coco(written(tmp_path / "a.json", CONTENT))
    assert lines == []
    assert found.categories == ((2, "cat"), (5, "dog"))
    assert found.names == ["a.png", "sub/b.png"]
    assert found.sizes.tolist() == [[30, 40], [20, 20]]
    first, second = found.of(0), found.of(1)
    assert first.corner.tolist() == [[0, 0, 41, 30], [10, 10, 5, 6]]
    assert (first.labels.tolist(), first.crowd.tolist(), first.areas.tolist()) == ([0, 1], [True, False], [1230, 30])
    assert (second.corner.tolist(), second.areas.tolist()) == ([[2, 3, 4.5, 5]], [11])
    assert found.chosen(np.array([1])).of(0).corner.tolist() == second.corner.tolist()
    assert found.places_with_box().tolist() == [0, 1]
    assert found.without_box() == []


def test_a_picture_with_a_group_only_has_nothing_to_learn(tmp_path):
    content = changed(lambda c: c["annotations"].pop(2))
    found, _ = read_coco(written(tmp_path / "a.json", content))
    assert found.places_with_box().tolist() == [1]


def of(entries, i, **values):
    return lambda content: content[entries][i].update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of("annotations", 0, bbox=[2, 3, 0, 5]), r"1 of 3 boxes.*annotation 1 of image 3, whose bbox.*is empty"),
        (of("annotations", 2, bbox=[10, 10, 35, 6]), "annotation 9 .* reaches out of its picture of 40 x 30 pixels"),
        (of("annotations", 2, bbox=[50, 10, 1, 6]), "reaches out of its picture"),
        (of("annotations", 2, bbox=[10, 10, float("nan"), 6]), "annotation 9 .* is not finite"),
        (of("annotations", 2, bbox=[10, 10, 1 << 2000, 6]), "is not finite"),
        (of("annotations", 2, bbox=[10, 10, 6]), r"must be \[x, y, width, height\]"),
        (of("annotations", 2, bbox="10"), r"must be \[x, y, width, height\]"),
        (of("annotations", 2, bbox=[True, 1, 2, 3]), r"must be \[x, y, width, height\]"),
        (of("annotations", 2, category_id=4), "annotation 9 .* category_id 4 is the id of no category"),
        (of("annotations", 2, image_id=8), "image_id 8 is the id of no image"),
        (of("annotations", 2, id=1), "1 annotations share their id with another one, the first is 1"),
        (of("images", 1, id=7), "1 images share their id"),
        (of("images", 1, id="7"), "id must be a whole number"),
        (of("images", 1, width=0), "images 1: its width must be a whole number"),
        (of("images", 1, file_name="../b.png"), "leads out of the folder"),
        (of("images", 1, file_name=3), "file_name must be a text"),
        (of("categories", 1, id=5), "1 categories share their id"),
        (of("categories", 1, name="dog"), "two categories are called 'dog'"),
        (of("categories", 1, name=None), "categories 1: its name must be a text"),
        (lambda c: c.update(annotations=[]), "list of annotations is empty"),
        (lambda c: c.pop("images"), "needs a list of objects under 'images'"),
        (lambda c: c.update(images=[1]), "needs a list of objects under 'images'"),
    ],
    ids=[
        "empty", "beyond", "outside", "nan", "huge", "three", "text", "bool", "category", "image", "twice", "image_id",
        "text_id", "width", "leads_out", "no_name", "category_id", "category_name", "nameless", "no_box", "no_images",
        "odd_images",
    ],
)  # fmt: skip
def test_a_mistake_in_the_json_is_one_line_with_the_file(tmp_path, change, said):
    path = written(tmp_path / "a.json", changed(change))
    with pytest.raises(UserError, match=said) as error:
        read_coco(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "no complete JSON"),
        (b'{"images": [', "no complete JSON"),
        (b"\xff\xfe{}", "no text in UTF-8"),
        (b"[1, 2]", "must be a JSON object"),
        (b"[" * 200_000, "nests lists too deeply|no complete JSON"),
        (b'{"images": [{"id": 1' + b"0" * 5000 + b"}]}", "."),
    ],
    ids=["empty", "cut", "encoding", "list", "deep", "digits"],
)
def test_what_is_no_annotation_at_all_is_one_line(tmp_path, raw, said):
    path = tmp_path / "a.json"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=said) as error:
        read_coco(path)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value)) < 700
    with pytest.raises(UserError, match=r"missing.json: there is no such file"):
        read_coco(tmp_path / "missing.json")


def test_few_bad_boxes_are_left_out_with_a_line_and_any_number_if_asked(tmp_path):
    many = changed(of("annotations", 0, bbox=[2, 3, 0, 5]))
    many["annotations"] += [{**CONTENT["annotations"][2], "id": 100 + i} for i in range(1000)]
    found, (line,) = read_coco(written(tmp_path / "many.json", many))
    assert len(found.boxes.labels) == 1002
    assert re.search(r"many\.json: 1 of 1003 boxes can't be used, .*; left out", line)
    few = written(tmp_path / "few.json", changed(of("annotations", 0, bbox=[2, 3, 0, 5])))
    found, (line,) = read_coco(few, skip_bad_boxes=True)
    assert len(found.boxes.labels) == 2


def test_pictures_that_are_missing_and_classes_that_differ_are_named(tmp_path):
    found, _ = read_coco(written(tmp_path / "a.json", CONTENT))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    with pytest.raises(MissingData, match=r"a\.json: 1 of its 2 pictures are not in .*: sub/b\.png"):
        require_pictures(tmp_path, found)
    other, _ = read_coco(written(tmp_path / "b.json", changed(of("categories", 0, name="wolf"))))
    with pytest.raises(UserError, match=r"b\.json: its classes are not those of .*a\.json; .*dog \(5\), wolf \(5\)"):
        compare_categories(found, other)


BOXES = [("ts", "<u8"), ("x", "<f4"), ("y", "<f4"), ("w", "<f4"), ("h", "<f4"), ("class_id", "u1"), ("track_id", "<u4")]
RULE = BoxRule(skip_us=500_000, side=10, diagonal=30)
HEAD = b"% Data file containing CD events.\n% Version 2\n% Height 240\n% Width 304\n" + bytes([0, 8])


def gen1_rows():
    rows = [
        (400_000, 10, 10, 60, 40, 0, 1), (600_000, 10, 10, 60, 40, 0, 1), (600_000, -5, 20, 30, 60, 1, 2),
        (700_000, 9, 9, 9, 80, 0, 1), (700_000, 9, 9, 20, 20, 0, 1), (800_000, 250, 200, 80, 60, 1, 3),
    ]  # fmt: skip
    return np.array(rows, BOXES)


def gen1_folder(folder, rows=None, name="17-03_a", events=None):
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{name}_bbox.npy", gen1_rows() if rows is None else rows)
    if events is None:
        t = np.arange(500_000, 900_000, 1000)
        events = np.stack([t, (t // 1000 % 304) | (t // 1000 % 240) << 14 | (t // 1000 % 2) << 28], 1)
    (folder / f"{name}_td.dat").write_bytes(HEAD + events.astype("<u4").tobytes())
    return folder


def read(folder, rule=RULE):
    return read_gen1(folder, sensor=(240, 304), window_us=50_000, rule=rule, classes=("car", "pedestrian"))


def test_gen1_gives_a_picture_for_each_moment_by_the_rules_of_the_toolbox(tmp_path):
    found, stretches, lines = read(gen1_folder(tmp_path / "test"))
    assert lines == []
    assert found.names == ["17-03_a_td.dat@600000", "17-03_a_td.dat@800000"]
    assert [(one.start_us, one.end_us) for one in stretches] == [(550_000, 600_000), (750_000, 800_000)]
    assert found.of(0).corner.tolist() == [[10, 10, 60, 40], [-5, 20, 30, 60]]
    assert (found.of(0).labels.tolist(), found.of(1).labels.tolist()) == ([0, 1], [1])
    assert found.categories == ((1, "car"), (2, "pedestrian"))
    events = stretches[0].events((240, 304))
    assert events["t"].tolist() == list(range(550_000, 600_000, 1000))
    assert (events["x"][0], events["y"][0], events["p"][1]) == (550 % 304, 550 % 240, True)
    none, _, _ = read(tmp_path / "test", BoxRule(skip_us=-1, side=0, diagonal=0))
    assert len(none) == 4


def with_field(name, value, at=2):
    def change(rows):
        rows[name][at] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_field("x", np.nan), "a box is no finite number"),
        (with_field("w", 0), r"1 of 6 boxes can't be used, the first is at 600000 us.*empty"),
        (with_field("x", 310), "outside of the sensor of 304 x 240 pixels"),
        (with_field("class_id", 2), "class_id of 2; those of this set are 0 to 1"),
        (with_field("ts", 100), "time goes backwards 1 times in 6 boxes"),
        (lambda rows: rows[["ts", "x", "y", "w"]], "lacks h, class_id"),
        (lambda rows: np.zeros((3, 5)), "must be a structured array"),
        (lambda rows: np.zeros(3, TEXTS), "must be numbers"),
    ],
    ids=["nan", "empty", "outside", "class", "time", "fields", "plain", "texts"],
)
def test_a_mistake_in_gen1s_boxes_is_one_line_with_the_file(tmp_path, change, said):
    folder = gen1_folder(tmp_path / "test", change(gen1_rows()))
    with pytest.raises(UserError, match=said) as error:
        read(folder)
    assert str(error.value).startswith(f"{folder / '17-03_a_bbox.npy'}: ")
    assert "\n" not in str(error.value)


def test_gen1s_files_are_data_and_come_in_pairs(tmp_path):
    folder = gen1_folder(tmp_path / "test")
    labels, recording = folder / "17-03_a_bbox.npy", folder / "17-03_a_td.dat"
    np.save(labels, np.array([{"x": 1}], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"17-03_a_bbox\.npy: .*Python objects, which are not loaded"):
        read(folder)
    whole = recording.read_bytes()
    recording.write_bytes(whole[:-3])
    with pytest.raises(UserError, match=r"17-03_a_td\.dat: truncated DAT recording"):
        read(folder)
    recording.unlink()
    with pytest.raises(MissingData, match="no recordings"):
        read(folder)
    recording.write_bytes(whole)
    labels.unlink()
    with pytest.raises(MissingData, match=r"17-03_a_td\.dat: there is no \*_bbox\.npy beside it"):
        read(folder)
    with pytest.raises(MissingData, match="no recordings"):
        read(tmp_path / "nowhere")


def test_a_recording_whose_clock_goes_backwards_is_named(tmp_path):
    t = np.arange(500_000, 900_000, 1000)
    t[60:90] = t[60:90][::-1]
    events = np.stack([t, np.zeros_like(t)], 1)
    _, stretches, _ = read(gen1_folder(tmp_path / "test", events=events))
    with pytest.raises(UserError, match=r"17-03_a_td\.dat from 550000 to 600000 us: time goes backwards"):
        stretches[0].events((240, 304))
