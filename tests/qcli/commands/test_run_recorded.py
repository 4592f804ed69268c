"""qcli run: questions about files, and questions that are recorded."""

from __future__ import annotations

import json

import pytest

from qcli.commands.file_texts import fenced
from qcli.sessions.library import Library

SAT = "A cat sat.\n"


def asked(engine, tokenizer):
    """The prompt that the engine was given, in one part or more."""
    return tokenizer.decode(engine.ids[: sum(engine.fed)], special=True)


def branch():
    """What is said in the last recorded conversation."""
    library = Library()
    return [message.text for message in library.read(library.last()).branch()]


def test_run_alone_records_nothing(telling, type_line):
    type_line("run", "Hi")
    assert Library().list() == []


def test_a_conversation_of_runs(telling, type_line, storyteller_tokenizer):
    assert type_line("run", "Hi", "--save", "-q") == (0, SAT, "")
    code, out, err = type_line("run", "Ho", "-c")
    assert (code, out) == (0, SAT)
    assert err.startswith('back in "Hi": 2 messages\n')
    assert branch() == ["Hi", "A cat sat.", "Ho", "A cat sat."]
    assert "Hi<|im_end|>\n<|im_start|>assistant\nA cat sat.<|im_end|>\n<|im_start|>user\nHo" in asked(
        telling, storyteller_tokenizer
    )
    code, out, err = type_line("run", "Ha", "--resume", "1", "--json")
    assert (code, json.loads(out)["text"], err) == (0, "A cat sat.", "")
    assert type_line("run", "Hm", "-c", "--no-save", "-q")[:2] == (0, SAT)
    assert len(branch()) == 6
    type_line("run", "New", "--name", "other")
    assert [(summary.name, summary.messages) for summary in Library().list()] == [("other", 2), ("", 6)]


def test_an_interrupted_answer_is_recorded_too(telling, type_line):
    whole = telling.step

    def interrupted(token):
        if telling.fed and len(telling.ids) == sum(telling.fed) + 1:
            raise KeyboardInterrupt
        return whole(token)

    telling.step = interrupted
    assert type_line("run", "Hi", "--save")[:2] == (130, "A cat\n")
    assert branch() == ["Hi", "A cat"]


def test_a_context_that_is_full(telling, type_line):
    long = "word " * 120
    type_line("run", long, "--save")
    code, out, err = type_line("run", long, "-c")
    assert (code, out) == (1, "")
    assert "--ctx" in err
    assert len(branch()) == 2
    assert type_line("run", long, "-c", "--ctx-full", "oldest", "-q") == (0, SAT, "")
    assert len(branch()) == 4


def test_what_cannot_be_recorded_is_answered_and_told(telling, type_line, monkeypatch, data_folder):
    (data_folder / "sessions").write_text("no folder")
    code, out, err = type_line("run", "Hi", "--save")
    assert (code, out) == (1, SAT)
    assert "cannot" in err


def test_raw_is_no_conversation(telling, type_line):
    for more in (["-c"], ["--save"], ["--resume", "x"], ["--name", "x"]):
        code, out, err = type_line("run", "Hi", "--raw", *more)
        assert (code, out, "--raw" in err) == (2, "", True)


def test_the_text_of_files_stands_before_the_question(telling, type_line, storyteller_tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("Tom\n")
    (tmp_path / "b.md").write_text("```\nJerry\n```")
    files = ["-f", str(tmp_path / "a.txt"), "--file", str(tmp_path / "b.md")]
    assert type_line("run", "Who?", "-q", *files) == (0, SAT, "")
    prompt = asked(telling, storyteller_tokenizer)
    assert prompt == (
        "<|im_start|>user\na.txt:\n```\nTom\n```\n\nb.md:\n````\n```\nJerry\n```\n````\n\nWho?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    whole = storyteller_tokenizer.decode(telling.ids[: telling.fed[0]])
    assert whole.endswith("````\n\n")  # a part of its own, which the prompt of the next question begins with
    type_line("run", "Who?", "--raw", *files)
    assert asked(telling, storyteller_tokenizer) == "Tom\n```\nJerry\n```Who?"


def test_a_file_may_be_piped_in(telling, type_line, storyteller_tokenizer):
    assert type_line("run", "Who?", "-q", "-f", "-", piped="Tom\n")[0] == 0
    assert "-:\n```\nTom\n```\n\nWho?" in asked(telling, storyteller_tokenizer)


@pytest.mark.parametrize(
    ("text", "written"),
    [("a", "n:\n```\na\n```"), ("a\n", "n:\n```\na\n```"), ("x ```` y", "n:\n`````\nx ```` y\n`````")],
)
def test_no_text_ends_its_own_fence(text, written):
    assert fenced("n", text) == written


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        (["Who?", "-f", "missing.txt"], 1, "missing.txt: no such file"),
        (["-f", __file__], 2, "there is no prompt"),
        (["Who?", "-f", "."], 1, "not a file"),
    ],
)
def test_a_file_that_cannot_be_asked_about(telling, type_line, line, code, told):
    got, out, err = type_line("run", *line)
    assert (got, out, told in err) == (code, "", True)


@pytest.mark.parametrize("command", ["imatrix", "perplexity"])
def test_ctx_has_no_short_form(type_line, command):
    code, _, err = type_line(command, "model", "text", "-c", "512")
    assert (code, "there is no option -c" in err) == (2, True)
