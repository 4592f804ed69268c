"""What a person types at a prompt: several lines, completion, and the answer to a question."""

from __future__ import annotations

import os

import pytest
from prompt_toolkit.application import create_app_session, get_app
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from qcli import line_input
from qcli.terminal.keyboard import Keyboard

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a console is needed there")


@pytest.fixture
def typed(monkeypatch):
    """Have these keys typed."""
    monkeypatch.setattr("prompt_toolkit.output.create_output", lambda stdout: DummyOutput())
    monkeypatch.setattr(line_input, "is_interactive", lambda: True)
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys.send_text


def offered(before):
    """As a chat offers it, of one command."""
    return [(before, "/undo ", "take back\x1b")] if "/undo".startswith(before) else []


@pytest.mark.parametrize(
    ("keys", "turns"),
    [
        ("one\rtwo\r", ["one", "two"]),
        ("one\\\rtwo\r", ["one\ntwo"]),
        ("one\x1b\rtwo\r", ["one\ntwo"]),
        ('"""one\rtwo"""\r', ['"""one\ntwo"""']),
        (" \rone\r", ["one"]),
    ],
)
def test_turns_that_are_typed(typed, keys, turns, data_folder, monkeypatch):
    monkeypatch.setattr("qcli.host.folders.state", lambda: data_folder)
    typed(keys + "\x04")
    assert list(line_input.turns(offered)) == turns


def test_a_history_that_cannot_be_kept_costs_no_message(typed, data_folder, monkeypatch):
    monkeypatch.setattr("qcli.host.folders.state", lambda: data_folder / "state")
    typed("one\r")
    turns = line_input.turns(offered)
    assert next(turns) == "one"
    (data_folder / "state" / "history").unlink()
    (data_folder / "state" / "history").mkdir()  # as a disk that is full, or read-only by now
    typed("two\r\x04")
    assert list(turns) == ["two"]


def test_a_turn_begins_with_what_was_typed_before_and_waits_for_enter(typed, data_folder, monkeypatch):
    monkeypatch.setattr("qcli.host.folders.state", lambda: data_folder)
    keyboard = Keyboard()
    turns = line_input.turns(offered, keyboard)
    keyboard._take("half a\rthought")
    typed("!\r")
    assert next(turns) == "half a\nthought!"
    keyboard._take("and then\r")  # while an answer came, which may change what is asked
    typed("?\r\x04")
    assert list(turns) == ["and then?"]


def test_a_turn_that_was_sent_before_the_first_prompt_is_taken(typed, data_folder, monkeypatch):
    monkeypatch.setattr("qcli.host.folders.state", lambda: data_folder)
    keyboard = Keyboard()
    keyboard._take("Hello\r")
    typed("two\r\x04")
    assert list(line_input.turns(offered, keyboard)) == ["Hello", "two"]


def test_a_paste_whose_end_others_have_read_is_not_waited_for(typed, monkeypatch):
    monkeypatch.setattr(line_input, "_history", InMemoryHistory)
    typed("one\r\x1b[200~half a paste")
    turns = line_input.turns()
    assert next(turns) == "one"
    typed("two\r\x04")
    assert list(turns) == ["two"]


def test_what_was_typed_stays_in_its_order_whoever_has_read_it(typed, monkeypatch):
    monkeypatch.setattr(line_input, "_history", InMemoryHistory)
    keyboard = Keyboard()
    typed("one\rtwo ")
    turns = line_input.turns(keyboard=keyboard)
    assert next(turns) == "one"
    keyboard.put_first("three")
    typed("\r\x04")
    assert list(turns) == ["two three"]


def test_ctrl_c_just_after_enter_is_no_error(typed, monkeypatch):
    told: list[object] = []
    monkeypatch.setattr("asyncio.base_events.logger.error", lambda *what, **more: told.append(what))

    class Interrupting(InMemoryHistory):
        def append_string(self, string: str) -> None:
            get_app().loop.call_soon(get_app().key_processor.send_sigint)

    monkeypatch.setattr(line_input, "_history", Interrupting)
    typed("one\rtwo\r\x04")
    assert list(line_input.turns()) == ["one", "two"]
    assert not told


def test_what_is_offered_replaces_what_is_typed_and_obeys_no_control_code():
    found = list(line_input._completer(offered).get_completions(Document("/un"), CompleteEvent()))
    assert [(item.text, item.start_position, item.display_meta_text) for item in found] == [
        ("/undo ", -3, "take back\ufffd")
    ]


@pytest.mark.parametrize(
    ("keys", "yes"), [("y\r", True), ("YES\r", True), ("\r", False), ("n\r", False), ("\x03", False), ("\x04", False)]
)
def test_a_question(typed, keys, yes):
    typed(keys)
    assert line_input.agreed("Replace it?") is yes
