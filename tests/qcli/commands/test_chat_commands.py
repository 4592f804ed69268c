"""What can be typed in a chat besides messages, and conversations that are left and come back to."""

from __future__ import annotations

import signal
import sys

import pytest

from qcli import line_input
from qcli.commands.recording import Wanted
from qcli.sessions.library import Library

SAT = "A cat sat.\n"


@pytest.fixture
def type_turns(type_line, telling, monkeypatch):
    """Type lines in a chat in a terminal; stdout and the lines of stderr that are not blank."""
    monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: True)
    monkeypatch.setattr(line_input, "is_interactive", lambda: False)
    monkeypatch.setattr("qcli.commands.answer.note_of", lambda llm: "")

    def run(*lines, options=()):
        code, out, err = type_line("chat", *options, piped="".join(line + "\n" for line in lines))
        assert code == 0
        return out, [line for line in err.splitlines() if line]

    return run


def listed():
    """Names or titles and numbers of messages, the newest first."""
    return [(summary.called, summary.messages) for summary in Library().list()]


def texts(wanted):
    """What the user says in a recorded conversation."""
    library = Library()
    return [message.text for message in library.read(library.find(wanted)).branch() if message.role == "user"]


def test_a_chat_in_a_terminal_is_recorded_and_says_so(type_turns):
    out, said = type_turns("Hi", "And then?")
    assert out == SAT * 2
    assert "qcli chat -c" in said[0]
    assert listed() == [("Hi", 4)]


@pytest.mark.parametrize(("options", "kept"), [((), 0), (("--save",), 1), (("--name", "n"), 1)])
def test_a_chat_in_a_pipe_is_recorded_on_request(telling, type_line, options, kept):
    assert type_line("chat", "-q", *options, piped="Hi\n") == (0, SAT, "")
    assert len(listed()) == kept


def test_one_that_is_not_to_be_recorded(type_turns):
    _, said = type_turns("Hi", "/fork", "/save", "/save late", "Ho", options=["--no-save"])
    assert "chat -c" not in said[0]
    assert "only a saved conversation can be copied" in said[1]
    assert said[3] == "saved from now on, with all that was said before"
    assert listed() == [("late", 4)]


def test_what_is_a_setting_elsewhere_has_its_place_here(type_turns):
    _, said = type_turns("/set verbose", "/set system Be short.")
    assert said[2::2] == ["hint: /set stats long does it", "hint: /system TEXT does it"]


def test_what_the_system_refuses_ends_no_chat(type_turns):
    out, said = type_turns(f"/model {'x' * 5000}", "Hi")
    assert "this name is too long for a file" in said[1]
    assert out == SAT


def test_ctrl_c_ends_a_command_and_not_the_chat(type_turns, monkeypatch):
    with monkeypatch.context() as slow:
        slow.setattr(Library, "list", lambda self: signal.raise_signal(signal.SIGINT))
        out, said = type_turns("/sessions", "Hi")
    assert said[1] == "stopped"
    assert out == SAT


def test_nothing_is_left_of_a_chat_without_a_message(type_turns):
    type_turns("/help", "/clear")
    assert listed() == []


def test_going_on_with_the_last_conversation(type_turns, type_line, telling, storyteller_tokenizer):
    type_turns("Hi", "Ho", "/undo")
    _, said = type_turns("Hey", options=["-c"])
    assert said[1].startswith('back in "Hi": 2 messages · 18 tokens, ')
    assert said[1].endswith(" s, 18 of them read again")
    prompt = storyteller_tokenizer.decode(telling.ids, special=True)
    assert prompt.count("A cat sat.") == 2
    assert "Ho" not in prompt
    assert type_line("chat", "-q", "--resume", "1", piped="Piped\n") == (0, SAT, "")
    assert texts("1") == ["Hi", "Hey", "Piped"]
    assert len(listed()) == 1


def test_going_on_without_recording_it(type_turns):
    type_turns("Hi")
    type_turns("Ho", options=["-c", "--no-save"])
    assert texts("1") == ["Hi"]


def test_undo_and_redo(type_turns):
    _, said = type_turns("One", "Two", "/undo", "/undo", "/undo", "/redo 2", "/redo", "/undo two", "/undo 0")
    assert said[1:4] == [
        '1 turn taken back; /redo brings it back · 1 turn, the last: "One"',
        "1 turn taken back; /redo brings it back · nothing is left",
        "error: there is no turn to take back",
    ]
    assert said[5] == '2 turns brought back · 2 turns, the last: "Two"'
    assert [line for line in said[6:] if line.startswith("error")] == [
        "error: there is no turn to bring back",
        "error: /undo takes a number of turns, not 'two'",
        "error: /undo takes a number of turns, not '0'",
    ]


def editor(tmp_path, monkeypatch, code):
    """Choose an editor that is a program in Python; `path` is the file that it is to edit."""
    program = tmp_path / "editor.py"
    program.write_text(f"import pathlib, sys\npath = pathlib.Path(sys.argv[1])\n{code}\n")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f'"{sys.executable}" "{program}"')


def test_edit(type_turns, tmp_path, monkeypatch):
    editor(tmp_path, monkeypatch, "path.write_bytes(path.read_bytes().replace(b'cat', b'dog') + b'please\\r\\n\\r\\n')")
    out, said = type_turns("Hi", "A cat?", "/edit", "/edit and more")
    assert (out, said[1:3]) == (SAT * 3, ["> A dog?", "please"])
    assert "takes nothing after its name" in said[3]
    assert texts("1") == ["Hi", "A dog?\nplease"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("pass", "nothing was changed"),
        ("path.write_text(' ')", "nothing was changed"),
        ("sys.exit(3)", "ended with code 3"),
        ("path.unlink()", "its file is gone"),
    ],
)
def test_an_edit_that_comes_to_nothing(type_turns, tmp_path, monkeypatch, code, told):
    editor(tmp_path, monkeypatch, code)
    out, said = type_turns("A cat?", "/edit")
    assert (out, told in said[1]) == (SAT, True)
    assert texts("1") == ["A cat?"]


@pytest.mark.parametrize(
    ("chosen", "told"), [("", "no editor is set"), ("'vi", "cannot be used"), ("/no/such", "was not edited")]
)
@pytest.mark.skipif(sys.platform == "win32", reason="there is always Notepad")
def test_an_editor_that_is_not_there(type_turns, monkeypatch, chosen, told):
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", chosen)
    assert told in type_turns("A cat?", "/edit")[1][1]


def test_edit_needs_a_message_and_a_terminal(type_turns, type_line):
    assert "no answer yet" in type_turns("/edit")[1][1]


def test_edit_in_a_pipe(telling, type_line):
    code, out, err = type_line("chat", piped="Hi\n/edit\n")
    assert (code, out) == (2, SAT)
    assert "/edit works only in a terminal" in err


def test_an_answer_that_was_stopped_goes_on(type_turns, telling, storyteller_tokenizer):
    begin = storyteller_tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    whole = telling.step

    def interrupted(token):
        if len(telling.ids) == len(begin) + 1:
            telling.step = whole
            raise KeyboardInterrupt
        return whole(token)

    telling.step = interrupted
    out, said = type_turns("Hi", "/continue", "/continue")
    assert out == "A cat\n" + SAT  # this engine says the same after whatever it has read
    assert said[1:3] == ["stopped · /continue goes on", "error: the last answer is complete"]
    library = Library()
    assert [message.text for message in library.read(library.last()).branch()] == ["Hi", "A catA cat sat."]


def test_one_that_was_stopped_before_it_began_cannot_go_on(type_turns, telling):
    telling.fail_next = KeyboardInterrupt()
    _, said = type_turns("Hi", "/continue")
    assert said[1] == "stopped"
    assert said[2].startswith("error:")


def test_fork_and_back(type_turns):
    _, said = type_turns("One", "/fork side", "Two", "/resume -", "Three", "/resume", "/sessions", "/resume side")
    assert listed() == [("One", 4), ("side", 4)]
    assert (texts("side"), texts("1")) == (["One", "Two"], ["One", "Three"])
    assert [line.partition(" · ")[0] for line in said[2:4]] == ['back in "One": 2 messages', "back in side: 4 messages"]
    assert all(line.endswith("nothing to read again") for line in said[2:4])
    assert said[4:6] == [
        '  1  "One" · 4 messages · storyteller',
        "  2  side · 4 messages · storyteller · this one",
    ]
    assert said[6] == "error: you are in that conversation already"


def test_a_fork_of_nothing_and_no_other_conversation(type_turns):
    _, said = type_turns("/fork", "/resume", "/resume nobody", "/sessions", "Hi", "/resume -", "/resume 7", "Ho")
    assert [line for line in said if line.startswith("error")] == [
        "error: there is nothing to copy yet",
        "error: there is no other conversation yet",
        "error: no conversation is called 'nobody'",
        "error: there is no other conversation yet",
        "error: there is no conversation 7, there are 1",
    ]
    assert texts("1") == ["Hi", "Ho"]


def test_clear_begins_another_one_and_keeps_the_system_message(type_turns):
    type_turns("One", "/system Rhyme.", "/clear", "Two", "/save second", "/save", options=["--name", "first"])
    assert listed() == [("second", 3), ("first", 2)]


def test_a_name_that_is_taken(type_turns, telling, type_line):
    _, said = type_turns("One", "/save same", "/clear", "Two", "/save same", "Three")
    assert "error: a conversation is called 'same' already" in said
    code, _, err = type_line("chat", "--name", "same", piped="Hi\n")
    assert (code, "already" in err) == (2, True)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["-c"], "there is no saved conversation"),
        (["--resume", "x"], "no conversation is called 'x'"),
        (["-c", "--resume", "x"], "cannot be used together"),
        (["--no-save", "--save"], "--no-save"),
        (["--no-save", "--name", "x"], "--no-save"),
        (["-c", "--name", "x"], "--name"),
        (["--name", "a/b"], "name"),
        (["--ctx-full", "newest"], "--ctx-full"),
    ],
)
@pytest.mark.parametrize("command", ["chat", "run"])
def test_what_cannot_be_meant(refused, telling, command, line, told):
    refused([command, *(["Hi"] if command == "run" else []), *line], 2, told)


def test_the_model_that_it_was_held_with_goes_on(type_turns, telling, type_line, tmp_path, storyteller):
    other = tmp_path / "other.gguf"
    other.write_bytes(storyteller.read_bytes())
    type_turns("Hi", options=["-m", str(other)])
    _, said = type_turns("Ho", options=["-c"])
    assert said[0].startswith("other · ")
    _, said = type_turns("Ha", options=["-c", "-m", "storyteller"])
    assert said[2].startswith("it was held with other, and storyteller goes on with it")
    assert Library().last().model == "storyteller"
    type_turns("Hm", options=["-c", "-m", str(other)])
    other.unlink()
    code, out, err = type_line("chat", "-c", piped="Hi\n")
    assert (code, out) == (1, "")
    assert "no longer there" in err
    assert "-m MODEL" in err


def test_a_home_that_is_not_there_is_no_reason_not_to_talk(type_turns, monkeypatch, refused, telling):
    def missing():
        raise FileNotFoundError

    monkeypatch.setattr("qcli.host.folders.data", missing)
    out, said = type_turns("Hi")
    assert (out, "this one is not saved" in said[0]) == (SAT, True)
    refused(["run", "Hi", "--save"], 1, "home")


def test_a_conversation_that_another_qcli_has_open(type_turns, type_line):
    type_turns("Hi")
    library = Library()
    with library.open(library.last()):
        for line in (["chat", "-c"], ["run", "Ho", "-c"]):
            code, out, err = type_line(*line, piped="Ho\n")
            assert (code, out, "another qcli has it open" in err) == (2, "", True)
    assert type_line("run", "Ho", "-c", "-q") == (0, SAT, "")


def test_a_conversation_that_has_outgrown_the_context_comes_back_all_the_same(type_turns, telling):
    type_turns("Hi", "word " * 100, "Ho")
    telling.ctx = 64
    out, said = type_turns("Hey", "/undo 2", "Hey", options=["-c"])
    assert said[1].endswith("6 messages")
    assert said[2].startswith("error: not answered: the prompt has ")
    assert out == SAT


def test_ctrl_c_while_a_conversation_comes_back(type_turns, telling, monkeypatch):
    type_turns("Hi")
    telling.fail_next = KeyboardInterrupt()
    out, said = type_turns("Ho", options=["-c"])
    assert (out, said[1]) == (SAT, 'back in "Hi": 2 messages')


def test_states_are_kept_on_disk_of_what_is_recorded_alone():
    assert Wanted().keep(recorded=True) == Wanted(go_on=True).keep(recorded=False) == "turns"
    assert Wanted().keep(recorded=False) is None
    assert Wanted().keep(recorded=False, otherwise="beginnings") == "beginnings"
    assert Wanted(go_on=True, no_save=True).keep(recorded=False, otherwise="beginnings") is None


def test_compact_and_back(type_turns):
    _, said = type_turns("/compact", "One", "Two", "Three", "/compact", "/undo", "/compact", "Four", "/undo 2")
    assert said[1] == "error: there is nothing to sum up yet"
    told = "A cat sat.", "summed up 1 turn: 5 tokens -> 4 tokens; /undo undoes this"
    assert tuple(said[3:5]) == tuple(said[6:8]) == told
    assert said[5] == "the summary is removed: the model sees the messages themselves again"
    assert said[8].startswith("2 turns taken back")


def test_ctrl_c_during_a_summary_changes_nothing(type_turns, telling):
    prefill = telling.prefill

    def interrupted(ids, progress=None):
        logits = prefill(ids, progress)
        if len(telling.fed) == 4:
            telling.fail_next = KeyboardInterrupt()
        return logits

    telling.prefill = interrupted
    _, said = type_turns("One", "Two", "Three", "/compact", "/undo")
    assert "stopped: nothing was changed" in said
    assert said[-1].startswith("1 turn taken back")


def test_an_answer_that_is_a_loop(type_turns, telling, storyteller_tokenizer):
    ids = storyteller_tokenizer.encode("The cat sat on the mat and it looked at the dog again. " * 14)
    telling._answer = [*ids, min(storyteller_tokenizer.end_ids)]
    out, said = type_turns("Hi", "/set stop_loops off", "/set stop", "/regenerate", "/set stop_loops maybe")
    assert out.count("The cat") in range(14 + 3, 14 + 7)
    told = "stopped, as the answer repeats itself · /regenerate tries again, /continue goes on, "
    told += "/set repeat_penalty 1.1 helps against it"
    assert said[1:3] == [told, "stop_loops is now off"]
    assert said.count(told) == 1
    assert "error: stop_loops cannot be maybe" in said
