"""Markdown shown while it comes: when, where, and that nothing shown is touched again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendered import STYLE, screen, sent

from qcli.terminal.markdown import MarkdownWriter

PARTS = [
    *("a", "word ", "text here ", "longwordlongwordlongword ", "**bold**", "**", "*", "_x_", "`", "`c d`", "~~", "\\"),
    *(
        "[l](u)",
        "[",
        "](",
        "&amp;",
        "&#27;",
        "<b>",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        " ",
        "  ",
        "    ",
        "- ",
        "  - ",
        "1. ",
        "2. ",
    ),
    *("> ", "# T", "```", "```\n", "```py\n", "---\n", "===\n", "|", "| a | b |\n", "|---|---|\n", "\x1b[31m"),
    *("你好，世界", "。", "漢字", "👩\u200d👧 ", "e\u0301"),
]


@given(st.lists(st.sampled_from(PARTS), max_size=40), st.lists(st.integers(1, 9), min_size=1))
def test_the_same_comes_out_however_the_text_is_cut(parts: list[str], sizes: list[int]) -> None:
    text = "".join(parts)
    pieces: list[str] = []
    at = 0
    while at < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[at : at + size])
        at += size
    assert sent(pieces, 20) == sent([text], 20)


@given(st.lists(st.sampled_from([*PARTS, "\x9b2J", "\x07", "&#13;", "&#x9b;", "\x1b]0;t\x07", "[x](http://a\x1b)"])))
def test_only_styles_and_line_ends_reach_the_terminal(parts: list[str]) -> None:
    shown = STYLE.sub("", sent(["".join(parts)], 20))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)


def test_escape_sequences_are_seen() -> None:
    assert screen("\x1b[31mred &#27;[2J") == "\ufffd[31mred \ufffd[2J\n"
    assert screen("```\n\x1b[31mred\n```").split("\n")[1] == "\ufffd[31mred"


@pytest.fixture
def shown() -> Shown:
    return Shown()


class Shown:
    """A writer, and what stands on the screen so far."""

    def __init__(self) -> None:
        self.columns, self._sent = 40, ""
        self._writer = MarkdownWriter(self._take, lambda: self.columns)

    def _take(self, text: str) -> None:
        self._sent += text

    def after(self, piece: str) -> str:
        self._writer(piece)
        return STYLE.sub("", self._sent)


def test_a_word_appears_when_it_ends(shown: Shown) -> None:
    assert shown.after("One tw") == "One"
    assert shown.after("o ") == "One two"
    assert shown.after("**th") == "One two"
    assert shown.after("ree** ") == "One two three"
    assert shown.after("\n\n") == "One two three\n"


def test_chinese_appears_character_by_character(shown: Shown) -> None:
    assert shown.after("你好") == "你"
    assert shown.after("，世") == "你好，"


def test_a_line_of_code_appears_when_it_ends(shown: Shown) -> None:
    shown.columns = 12
    assert shown.after("```python\nx =") == "── python ──\n"
    assert shown.after(" 1\n") == "── python ──\nx = 1\n"
    assert shown.after("```\n") == "── python ──\nx = 1\n────────────\n"


def test_a_table_appears_when_it_ends(shown: Shown) -> None:
    assert shown.after("| a | b |\n|---|---|\n| 1 | 2 |\n") == ""
    assert "1" in shown.after("\n")


def test_the_width_is_asked_for_at_each_line(shown: Shown) -> None:
    shown.after("words words wor")
    shown.columns = 11
    assert shown.after("ds more words and more, still\n").split("\n") == [
        "words words words more words and more,",
        "still",
    ]
    assert shown.after("and again\n").endswith("still and\nagain")


def test_code_can_be_copied() -> None:
    code = "def f():\n    return 'a line that is longer than the terminal is wide'\n\n\nf()"
    assert screen(f"```python\n{code}\n\n```", 20).split("\n")[1:-2] == code.split("\n")


def test_bold_words_that_end_late_are_bold_from_the_start() -> None:
    text = "so **" + "word " * 30 + "end** and more"
    assert "**" not in screen(text)
    assert "\x1b[1mend\x1b[0m" in sent([text])
    assert "\x1b[1mmore" not in sent([text])


@pytest.mark.parametrize(
    ("text", "stands_there"),
    [
        ("Title\n=====\ntext", "Title\n\ntext\n"),
        ("a [b][c]\n\n[c]: http://d", "a [b][c]\n\n[c]: http://d\n"),
        ("9. nine\n10. ten", " 9 nine\n 10 ten\n"),
        ("![alt](http://a/b.png) text", "🌆 alt (http://a/b.png) text\n"),
        ("<http://a> [b](http://c)", "http://a b (http://c)\n"),
        ("vector<int> and <div>", "vector<int> and <div>\n"),
        ("2*3 is " + "word " * 15, "2*3 is " + "word " * 13 + "word\nword\n"),
        ("a ` b " + "word " * 80, None),
        ("-", " •\n"),
        ("", ""),
    ],
)
def test_what_differs_from_rich(text: str, stands_there: str | None) -> None:
    assert (screen(text) == stands_there) if stands_there is not None else ("a ` b word" in screen(text))


def test_no_color_keeps_the_layout() -> None:
    text = "# T\n\n- **a** `b`\n\n```python\nx = 1\n```"
    plain = sent([text], no_color=True)
    assert STYLE.sub("", plain) == STYLE.sub("", sent([text]))
    assert not re.search(r"\x1b\[[\d;]*\b(3[0-7]|4[0-7]|9[0-7])\b", plain)


def test_what_is_nested_without_end_stays_readable() -> None:
    shown = screen("> " * 50 + "deep down\n", 40).split("\n")
    assert shown[0].startswith("▌ " * 20 + "> ")
    assert "".join(line.removeprefix("▌ " * 20) for line in shown).replace(" ", "") == ">" * 30 + "deepdown"


def test_marks_at_the_end_of_a_heading_are_left_out() -> None:
    assert screen("## C# ##\n\n## F#\n\n##\n") == "C#\n\nF#\n\n"
