"""Lines broken at words, as wide as a terminal."""

from __future__ import annotations

import math

import pytest

from qcli.terminal.text import wrapped


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("one two three", math.inf, ["one two three"]),
        ("one two three", 13, ["one two three"]),
        ("one two three", 9, ["one two", "three"]),
        ("one two\nthree four", 7, ["one two", "three", "four"]),
        ("日本 日本 日本", 10, ["日本 日本", "日本"]),
        ("  3  user: hello", 12, ["  3  user:", "hello"]),
        ("a/path/longer/than/it", 8, ["a/path/longer/than/it"]),
        ("type `qcli run x`, please", 12, ["type", "`qcli run x`,", "please"]),
        ("an `open mark", 6, ["an", "`open", "mark"]),
        ("", 4, [""]),
    ],
)
def test_lines_are_broken_at_words_and_commands_are_not(text, columns, lines):
    assert wrapped(text, columns).split("\n") == lines
