"""Text lists as Windows' editors and spreadsheets save them."""

import pytest

from braincog_transformers.data.formats.text import read_lines
from braincog_transformers.errors import UserError

LINES = ["n01", "zoë b", "", "n02"]
SAVED = {
    "unix": "\n".join(LINES).encode(),
    "last_line_ended": ("\n".join(LINES) + "\n").encode(),
    "windows": ("\r\n".join(LINES) + "\r\n").encode(),
    "windows_with_a_mark": ("\r\n".join(LINES) + "\r\n").encode("utf-8-sig"),
    "old_mac": "\r".join(LINES).encode(),
    "blank_last_lines": ("\n".join(LINES) + "\n\n \t\n\r\n").encode(),
    "blanks_at_the_ends": " \n".join(LINES).encode(),
    "utf16_little": ("\r\n".join(LINES) + "\r\n").encode("utf-16"),
    "utf16_big": b"\xfe\xff" + "\r\n".join(LINES).encode("utf-16-be"),
}


@pytest.mark.parametrize("data", SAVED.values(), ids=SAVED)
def test_a_list_reads_the_same_from_any_editor(data, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    assert read_lines(path) == LINES


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf\r\n"], ids=["nothing", "blank_lines", "a_mark"])
def test_an_empty_list_has_no_lines(data, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    assert read_lines(path) == []


def test_a_sign_that_a_name_may_hold_ends_no_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a\u2028b\nc\x0bd\n", encoding="utf-8")
    assert read_lines(path) == ["a\u2028b", "c\x0bd"]


@pytest.mark.parametrize(
    "data",
    [b"caf\xe9\n", b"a\0b\n", "ab\n".encode("utf-16-le"), "ab\n".encode("utf-32"), b"\xff\xfea"],
    ids=["latin1", "zero_byte", "utf16_without_a_mark", "utf32", "half_a_sign"],
)
def test_what_is_no_text_is_named_in_one_line(data, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"list\.txt: is no UTF-.* text .*; save it as UTF-8") as error:
        read_lines(path)
    assert "\n" not in str(error.value)


def test_a_missing_list_is_named_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"list\.txt: can't be read \(No such file"):
        read_lines(tmp_path / "list.txt")
