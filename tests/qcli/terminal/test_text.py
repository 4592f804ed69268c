"""Texts of others as a terminal may have them, and lines broken at words, as wide as it is."""

from __future__ import annotations

import json
import math
import unicodedata

import pytest

from qcli.terminal.text import Filter, clean, clean_json, clean_lines, control_codes_shown, wrapped

JOINERS = "\u200c\u200d"  # in Persian words, and in emoji that consist of others
BEFORE_NUMBERS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"  # that are seen


def test_a_name_has_nothing_that_turns_a_line_around_or_is_not_seen():
    formats = "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c) in ("Cf", "Zl", "Zp"))
    for c in set(formats + "\U000e0041\U000e0001") - set(JOINERS + BEFORE_NUMBERS):
        assert clean(f"a{c}b") == clean_lines(f"a{c}b") == "a\ufffdb", hex(ord(c))
    assert clean(f"می{JOINERS[0]}خواهم 👩{JOINERS[1]}🚀") == f"می{JOINERS[0]}خواهم 👩{JOINERS[1]}🚀"
    assert clean("a\tb\nc\x1b\x9b") == "a b c\ufffd\ufffd"
    assert clean_lines("a\tb\r\nc\x1b\x9b\r") == "a\tb\nc\ufffd\ufffd\ufffd"


def test_a_text_keeps_what_languages_need_and_no_override():
    text = "\u2067שלום\u2069\u200f! \u202egnp.exe\u202c"
    assert control_codes_shown(text) == Filter()(text) == text.replace("\u202e", "\ufffd")


def test_json_has_escapes_for_what_would_be_obeyed():
    value = {"name": "a\u202e\x9b\x7f\U000e0041é\u200d"}
    written = clean_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(written) == value
    assert written == '{"name": "a\\u202e\\u009b\\u007f\\udb40\\udc41é\u200d"}'


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
