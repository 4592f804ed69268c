"""Where an answer is rendered, and where it stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from terminal import Terminal

from qcli import console
from qcli.commands.answer import Screen, show
from qcli.text.thoughts import Thought

ANSWER = "# Two\n\n- **bold** `code`"


def in_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Have stdout be a terminal."""
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return screen


def shown(*pieces: Any, plain: bool = False) -> str:
    """Show an answer in pieces; the text that comes back."""

    def answer() -> Iterator[Any]:
        yield from pieces

    screen = Screen(plain)
    text, _ = show(answer(), console.status("x", quiet=True), screen, lambda thought: None)
    screen.end_line(text)
    return text


def test_markdown_is_rendered_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_terminal(monkeypatch)
    assert shown(ANSWER[:9], ANSWER[9:]) == ANSWER
    assert terminal.getvalue().endswith(" \x1b[0m\x1b[1mbold\x1b[0m \x1b[1;36;40mcode\x1b[0m\n")
    assert "**" not in terminal.getvalue()


def test_markdown_stays_as_it_is_where_it_is_wanted_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_terminal(monkeypatch)
    shown(ANSWER, plain=True)
    assert terminal.getvalue() == ANSWER + "\n"


def test_markdown_stays_as_it_is_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    shown(ANSWER)
    assert terminal.getvalue() == ANSWER + "\n"


def test_markdown_stays_as_it_is_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    shown("a\r", "\n\x1b[0m **b**\n")
    assert capsys.readouterr().out == "a\r\n\x1b[0m **b**\n"


def test_no_color_is_honoured_in_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    shown(ANSWER)
    assert "\x1b[1mcode\x1b[0m" in terminal.getvalue()


def test_what_waits_is_shown_before_later_thoughts_and_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_terminal(monkeypatch)
    shown(Thought("hm"), "one", Thought("again"), "two **th")
    assert terminal.getvalue() == "one\ntwo **th\n"


def test_what_waits_is_shown_when_the_answer_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_terminal(monkeypatch)

    def answer() -> Iterator[Any]:
        yield "one **two"
        raise KeyboardInterrupt

    assert show(answer(), console.status("x", quiet=True), Screen()) == ("one **two", True)
    assert terminal.getvalue() == "one **two\n"
