"""qcli run: the first block of code, a file, both with --json; loops; and no prompt at all."""

from __future__ import annotations

import json

import pytest

from qcli import console
from qcli.host import atomic_files

CODE = 'Here you are:\n```python\nprint("hi")\n```\nIt prints a greeting.\n```\nmore\n```\n'
SENTENCE = "The cat sat on the mat and it looked at the dog again. "


@pytest.fixture
def answers(telling, storyteller_tokenizer):
    """Let the engine answer a text."""

    def answer(text):
        telling._answer = [*storyteller_tokenizer.encode(text, special=False), min(storyteller_tokenizer.end_ids)]

    return answer


def test_the_first_block_of_code_alone_and_nothing_is_said_after_it(answers, type_line, telling):
    answers(CODE)
    assert type_line("run", "x", "-x") == (0, 'print("hi")\n', "")
    assert len(telling.ids) - sum(telling.fed) < len(telling._answer) - 8


def test_code_that_nothing_closes_counts_where_the_model_has_ended(answers, type_line):
    answers("```\nls -l")
    assert type_line("run", "x", "-x") == (0, "ls -l", "")
    code, out, err = type_line("run", "x", "-x", "-n", "4")
    assert (code, out) == (1, "")
    assert "the answer has no complete block of code: it reached --max-tokens" in err


def test_no_code_is_an_error_in_one_line(type_line, telling):
    code, out, err = type_line("run", "x", "-x")
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == "error: the answer has no block of code"


def test_code_in_json(answers, type_line):
    answers(CODE)
    code, out, _ = type_line("run", "x", "-x", "--json")
    answer = json.loads(out)
    assert (code, answer["code"], answer["finish_reason"]) == (0, 'print("hi")\n', "stop")
    assert answer["text"].startswith("Here you are:")
    answers("None.")
    code, out, err = type_line("run", "x", "-x", "--json")
    assert (code, json.loads(out)["code"]) == (1, None)
    assert "no block of code" in err


@pytest.mark.parametrize(
    ("options", "written"), [([], CODE), (["-x"], 'print("hi")\n'), (["--raw"], CODE), (["--plain", "-q"], CODE)]
)
def test_an_answer_goes_to_a_file_as_it_would_to_a_pipe(answers, type_line, tmp_path, options, written):
    answers(CODE)
    code, out, err = type_line("run", "x", "-o", str(tmp_path / "a.txt"), *options)
    assert (code, out) == (0, "")
    assert (tmp_path / "a.txt").read_bytes() == written.encode()
    assert ("written to" in err) == ("-q" not in options)


def test_json_goes_to_a_file(telling, type_line, tmp_path):
    assert type_line("run", "x", "--json", "-q", "-o", str(tmp_path / "a.json")) == (0, "", "")
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["text"] == "A cat sat."


def test_on_a_terminal_the_answer_is_shown_too(telling, type_line, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "answers_a_person", lambda: True)
    assert type_line("run", "x", "--plain", "-q", "-o", str(tmp_path / "a"))[:2] == (0, "A cat sat.\n")
    assert (tmp_path / "a").read_text() == "A cat sat.\n"


def test_what_is_cut_does_not_pass_for_whole(telling, type_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = type_line("run", "x", "-n", "2", "-o", "a.txt")
    assert (code, out) == (1, "")
    assert "not complete: it reached --max-tokens" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt.partial"]
    assert (tmp_path / "a.txt.partial").read_text() == "A cat\n"
    assert type_line("run", "x", "-n", "2", "-o", "a.txt", "--raw")[0] == 0  # a text goes on as long as one asks for
    assert (tmp_path / "a.txt").read_text() == "A cat\n"


def test_an_interrupted_answer_is_kept_beside(telling, type_line, tmp_path):
    step = telling.step

    def interrupted(token):
        if telling.fed and len(telling.ids) - sum(telling.fed) == 1:
            raise KeyboardInterrupt
        return step(token)

    telling.step = interrupted
    code, _, err = type_line("run", "x", "-o", str(tmp_path / "a.txt"))
    assert (code, [path.name for path in tmp_path.iterdir()]) == (130, ["a.txt.partial"])
    assert "not complete: it was interrupted" in err


def test_an_answer_that_cannot_be_written_is_printed(telling, type_line, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    code, out, err = type_line("run", "x", "-o", str(tmp_path / "a.txt"))
    assert (code, out) == (1, "A cat sat.\n")
    assert "No space left" in err
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_written_over_unless_it_is_asked_for(telling, type_line, tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    assert type_line("run", "x", "-o", str(tmp_path / "a.txt"))[0] == 1
    assert type_line("run", "x", "-f", str(tmp_path / "a.txt"), "-o", str(tmp_path / "a.txt"), "--force")[0] == 1
    assert (tmp_path / "a.txt").read_text() == "mine"
    assert type_line("run", "x", "-o", str(tmp_path / "a.txt"), "--force")[0] == 0
    assert (tmp_path / "a.txt").read_text() == "A cat sat.\n"


def test_the_model_is_not_written_over(telling, type_line, storyteller):
    before = storyteller.stat()
    code, _, err = type_line("run", "x", "-o", str(storyteller), "--force")
    assert (code, storyteller.stat().st_mtime_ns) == (1, before.st_mtime_ns)
    assert "is read by this command" in err


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["run", "x", "--force"], 2, "--force is only for use with -o"),
        (["run", "x", "-o", ""], 2, "-o takes the name of a file"),
        (["run", "x", "-o", "-"], 2, "-o takes the name of a file"),
        (["run", "x", "-o", "."], 1, "is not an ordinary file"),
        (["run", "x", "-o", "no/such/a.txt"], 1, "there is no folder"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_loaded(refused, line, code, said):
    refused(line, code, said)


def test_a_loop_is_stopped_and_says_what_to_type(answers, type_line, tmp_path):
    answers(SENTENCE * 14)
    code, out, err = type_line("run", "x")
    assert code == 0
    assert out.count("The cat") < 8
    assert err == "stopped, as the answer repeats itself · try --repeat-penalty 1.1; --no-stop-loops lets it go on\n"
    assert json.loads(type_line("run", "x", "--json")[1])["finish_reason"] == "loop"
    assert type_line("run", "x", "--repeat-penalty", "1.1")[2].count("--repeat-penalty 1.2") == 1
    for options in (["--no-stop-loops"], ["--raw"]):
        assert type_line("run", "x", *options)[1].count("The cat") == 14
    assert type_line("run", "x", "--raw", "--stop-loops")[1].count("The cat") < 8
    assert type_line("run", "x", "-o", str(tmp_path / "a"))[0] == 1
    assert (tmp_path / "a.partial").exists()


def test_loops_can_be_let_alone_by_a_setting(answers, type_line, monkeypatch):
    answers(SENTENCE * 14)
    monkeypatch.setenv("QCLI_STOP_LOOPS", "off")
    assert type_line("run", "x")[1].count("The cat") == 14
    assert type_line("run", "x", "--stop-loops")[1].count("The cat") < 8


@pytest.fixture
def at_a_terminal(telling, monkeypatch):
    for place in ("qcli.commands.run", "qcli.commands.chat"):
        monkeypatch.setattr(f"{place}.is_interactive", lambda: True)


def test_without_a_prompt_a_terminal_talks(at_a_terminal, type_line, storyteller, monkeypatch):
    code, out, err = type_line("run", piped="Hi\n/exit\n")
    assert (code, out) == (0, "A cat sat.\n")
    assert "/help lists the commands" in err
    assert type_line("run", str(storyteller), "--system", "Be brief.", piped="/system\n")[2].count("Be brief.") == 1
    assert type_line("run", str(storyteller), "-m", "storyteller")[0] == 2  # two models
    monkeypatch.setenv("QCLI_MODEL", "gone")
    assert type_line("run", str(storyteller), piped="Hi\n")[1] == "A cat sat.\n"
    monkeypatch.delenv("QCLI_MODEL")
    assert "back in" in type_line("run", "-c", piped="/exit\n")[2]


def test_a_chat_that_run_opens_is_recorded_as_the_settings_say(at_a_terminal, type_line, monkeypatch, data_folder):
    monkeypatch.setenv("QCLI_SAVE", "no")
    assert "qcli chat -c" not in type_line("run", piped="Hi\n")[2]
    assert not list(data_folder.rglob("*.jsonl"))
    assert "qcli chat -c" in type_line("run", "--save", piped="Hi\n")[2]


@pytest.mark.parametrize("option", [["--json"], ["-x"], ["-o", "a"], ["--raw"], ["--stats"], ["-f", "a"], ["--force"]])
def test_what_a_chat_does_not_have_needs_a_prompt(at_a_terminal, refused, option):
    refused(["run", *option], 2, " needs a prompt")


def test_nothing_piped_in_is_no_prompt(refused, telling):
    refused(["run"], 2, "there is no prompt")
