"""What a message may hold of what a user or a file gave."""

from braincog_transformers.errors import quoted, shown


def test_names_in_messages_are_one_printable_line_of_bounded_length():
    assert shown("a\nb\u2028c") == "a b c"
    assert shown("a\x00\x1b[2J") == "a\\x00\\x1b[2J"
    assert shown("é 图") == "é 图"
    assert len(shown("x" * 10_000, 120)) <= 120
    assert shown("begin" + "x" * 900 + ".JPEG", 120).endswith("xxx.JPEG")


def test_whole_numbers_that_python_does_not_write_are_told_by_their_size():
    assert shown(1 << 30) == "1073741824"
    assert "20001 bits" in shown(1 << 20_000)
    assert "20001 bits" in quoted({"depth": [1 << 20_000]})
