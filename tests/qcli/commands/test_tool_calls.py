"""Tools at the command line: calls shown, asked about, run, and answered."""

from __future__ import annotations

import json

import pytest
from calling_engine import CALL, CLOCK, TEMPLATE, CallingEngine

from qcli import line_input
from qcli.commands import tool_calls
from qcli.runtime.engine import Engine
from qcli.sessions.library import Library
from qcli.text.chat_template import ChatTemplate
from qcli.tools.call import ToolCall


@pytest.fixture
def says(monkeypatch, storyteller_tokenizer, tmp_path):
    """Have a model with a template for tools give these answers; the path of a file with functions."""
    path = tmp_path / "clock.py"
    path.write_text(CLOCK, "utf-8")
    end = min(storyteller_tokenizer.end_ids)

    def answers(*texts: str) -> str:
        ids = [[*storyteller_tokenizer.encode(text), end] for text in texts]
        engine = CallingEngine(storyteller_tokenizer.vocab_size, 4096, ids)
        monkeypatch.setattr(Engine, "load", lambda *_, **__: engine.open())
        monkeypatch.setattr("qcli.llm.LLM.template", ChatTemplate(TEMPLATE))
        answers.engine = engine
        return str(path)

    return answers


@pytest.fixture
def type_turns(type_line, monkeypatch):
    """Type turns in a chat in a terminal, and answers to its questions; stdout, lines of stderr after the greeting."""

    def chat(file: str, *turns: str, replies: tuple[str | None, ...] = (), more: tuple[str, ...] = ()):
        given = iter(replies)
        asked = []
        monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: True)
        monkeypatch.setattr(line_input, "is_interactive", lambda: False)
        monkeypatch.setattr(line_input, "asked", lambda question: (asked.append(question), next(given))[1])
        piped = "".join(f"{turn}\n" for turn in turns)
        code, out, err = type_line("chat", "--tools", file, *more, piped=piped)
        assert code == 0
        return out, [line for line in err.splitlines()[1:] if line], asked

    return chat


def test_a_call_is_shown_or_a_part_of_the_json(says, type_line, tmp_path):
    file = says("I look." + CALL)
    assert type_line("run", "When?", "--tools", file) == (0, "I look.\n", 'call: now(zone="Zürich")\n')
    code, out, _ = type_line("run", "When?", "--tools", file, "--json")
    found = json.loads(out)
    (call,) = found["tool_calls"]
    assert (code, found["text"], found["finish_reason"]) == (0, "I look.", "tool_calls")
    assert call["function"] == {"name": "now", "arguments": '{"zone": "Zürich"}'}
    assert not (tmp_path / "clock.py.log").exists()


def test_a_call_that_is_cut_is_told(says, type_line):
    file = says(CALL)
    code, out, err = type_line("run", "When?", "--tools", file, "-n", "20")
    assert (code, out) == (1, "\n")
    assert err.startswith("a tool call that is incomplete, or cannot be read: <tool_call>")


def test_a_function_runs_after_a_yes_and_the_model_goes_on(says, type_turns, tmp_path):
    out, err, asked = type_turns(says("I look." + CALL, "It is noon."), "When?", replies=("y",))
    assert out == "I look.\nIt is noon.\n"
    assert asked == ['run now(zone="Zürich")? [y]es, [a]ll from now on, [N]o:']
    assert 'now(zone="Zürich") → noon in Zürich' in err
    assert (tmp_path / "clock.py.log").read_text() == "Zürich\n"
    turn = Library().read(Library().last()).branch()
    assert [message.role for message in turn] == ["user", "assistant", "tool", "assistant"]
    assert (turn[2].text, turn[2].call) == ("noon in Zürich", turn[1].calls[0]["id"])


def test_all_from_now_on_no_and_no_more(says, type_turns, tmp_path):
    file = says(CALL, CALL, "Done.")
    assert type_turns(file, "When?", replies=("a",))[0] == "Done.\n"
    assert type_turns(says(CALL, "Why not?"), "When?", replies=("",))[0] == "Why not?\n"
    assert type_turns(says(CALL, "Hm."), "When?", "And now?", replies=(None,))[0] == "Hm.\n"
    roles = [message.role for message in Library().read(Library().last()).branch()]
    assert roles == ["user", "assistant", "tool", "user", "assistant"]
    assert (tmp_path / "clock.py.log").read_text() == "Zürich\nZürich\n"


@pytest.mark.parametrize(("most", "shown"), [(4000, "xxEND"), (60, "[… 121 characters are not shown …]")])
def test_what_is_asked_about_is_shown_to_its_end(says, type_turns, monkeypatch, most, shown):
    monkeypatch.setattr(tool_calls, "_MOST_SHOWN", most)
    _, err, asked = type_turns(says(CALL.replace("Zürich", "x" * 166 + "END"), "No."), "When?", replies=("n",))
    assert asked == ["run now? [y]es, [a]ll from now on, [N]o:"]
    (line,) = [line for line in err if line.startswith("now(zone=")]
    assert line.endswith('END")')
    assert shown in line


def test_marks_that_turn_a_line_about_are_spelled():
    assert tool_calls.written(ToolCall("now", {"zone": "a\u202eb"})) == 'now(zone="a\\u202eb")'


def test_none_and_a_limit(says, type_turns, tmp_path):
    _, err, _ = type_turns(says(CALL), "When?", more=("--approve", "none"))
    assert 'tool call, not run: now(zone="Zürich")' in err
    _, err, _ = type_turns(says(CALL), "When?", more=("--approve", "all", "--chain-limit", "2"))
    assert (tmp_path / "clock.py.log").read_text() == "Zürich\n" * 2
    assert "2 calls at most are run for a message" in err[-1]


def test_undo_takes_texts_back_and_says_what_stays_done(says, type_turns):
    _, err, _ = type_turns(says(CALL, "Noon."), "When?", "/undo", more=("--approve", "all"))
    assert err[-1] == "1 turn taken back; /redo brings it back · nothing is left; what the tool did stays done"


def test_tools_are_listed(says, type_turns, type_line):
    _, err, _ = type_turns(says("Hi."), "/tools")
    assert err[-3:] == [
        "now   Read the clock.",
        "fail  Fail.",
        "calls of these are run when you say so, at most 10 for a message",
    ]
    _, err, _ = type_turns(says("Hi."), "/tools", more=("--approve", "none"))
    assert err[-1] == "calls of these are shown, and not run"


def test_what_is_computed_of_a_chain_is_not_computed_again(says, type_turns):
    """The ids of an answer with a call, and of its prompt, begin the prompt of the next."""
    type_turns(says("I look.\n" + CALL, "Noon."), "When?", more=("--approve", "all"))
    first, second = says.engine.prompts
    said = says.engine._answers[0][:-1]
    assert second[: len(first) + len(said)] == (*first, *said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["run", "Hi", "--tools", "missing.json"], "missing.json: cannot be read"),
        (["run", "Hi", "--tool-choice", "auto"], "--tool-choice says how tools are called, and there are none"),
        (["chat", "--approve", "all"], "--approve needs --tools"),
        (["chat", "--tools", "missing.py"], "missing.py: cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_model_is_loaded(refused, line, said):
    refused([*line, "-m", "missing.gguf"], 2, said)


def test_more_that_cannot_be_meant(says, type_line, tmp_path):
    file = says("Hi.")
    listed = tmp_path / "list.json"
    listed.write_text('[{"name": "now"}]')
    for line, said in [
        (["chat", "--tools", file], "there is nobody to ask about tool calls"),
        (["chat", "--tools", file, "--approve", "some"], "--approve cannot be some"),
        (["chat", "--tools", str(listed), "--approve", "all"], "has no functions that could be run"),
        (["run", "Hi", "--tools", file, "--tool-choice", "other"], "--tool-choice cannot be other"),
        (["run", "Hi", "--tools", file, "--raw"], "--tools and --raw cannot be used together"),
    ]:
        code, out, err = type_line(*line, piped="Hi\n" if line[0] == "chat" else "")
        assert (code, out) == (2, "")
        assert said in err


def test_a_model_without_a_place_for_tools_says_so(telling, type_line, tmp_path):
    (tmp_path / "list.json").write_text('[{"name": "now"}]')
    code, out, err = type_line("run", "Hi", "--tools", str(tmp_path / "list.json"))
    assert (code, out) == (2, "")
    assert "error: the model's chat template has no place for tools" in err
