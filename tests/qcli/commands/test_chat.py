"""qcli chat: turns, commands, interruptions; piped, then typed in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qcli import line_input
from qcli.errors import ContextOverflowError
from qcli.gguf.file import GGUFFile

TURNS = "Hello\n\nAnd then?\n"


def prompt_of(engine, tokenizer):
    """What the engine's state holds now, as text."""
    return tokenizer.decode(engine.ids, special=True)


def test_one_turn_a_line_without_prompts(telling, type_line):
    assert type_line("chat", piped=TURNS) == (0, "A cat sat.\nA cat sat.\n", "")
    code, out, err = type_line("chat", "--verbose", piped=TURNS)
    assert (code, out) == (0, "A cat sat.\nA cat sat.\n")
    assert err.count(" new at ") == err.count("\n") == 2


def test_each_turn_reads_only_what_is_new(telling, type_line, storyteller_tokenizer):
    type_line("chat", "-q", piped=TURNS)
    text = prompt_of(telling, storyteller_tokenizer)
    assert text == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nA cat sat.<|im_end|>\n"
        "<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\nA cat sat."
    )
    answers = 2 * len(storyteller_tokenizer.encode("A cat sat."))
    assert sum(telling.fed) + answers == len(telling.ids)


def test_system_clear_and_stats(telling, type_line, storyteller_tokenizer):
    _, out, err = type_line("chat", "-q", "--system", "Rhyme.", piped="Hi\n/clear\n/system Be brief.\nYo\n/stats\n")
    assert prompt_of(telling, storyteller_tokenizer) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nYo<|im_end|>\n<|im_start|>assistant\nA cat sat."
    )
    assert out == "A cat sat.\n" * 2
    assert "of the context of 256 tokens are used" in err


def test_regenerate_answers_the_same_prompt_without_reading_it_again(telling, type_line):
    _, out, _ = type_line("chat", "-q", piped="Hi\n/regenerate\n")
    assert out == "A cat sat.\n" * 2
    assert len(telling.fed) == 1


def test_regenerate_needs_an_answer(telling, type_line):
    assert "there is no answer yet" in type_line("chat", piped="/regenerate\n")[2]


def test_help_exit_and_unknown_commands(telling, type_line):
    code, out, err = type_line("chat", piped="/help\n/exit\nHello\n")
    assert (code, out) == (0, "")
    assert "/regenerate" in err
    for line in ("/dance", "/EXIT now", "/sytem Be brief.", "/help me, please", "/halp"):
        code, out, err = type_line("chat", piped=f"{line}\nHello\n")
        assert (code, out) == (2, ""), line
        assert line.split()[0].lower() in err
        assert "hint: " in err


def test_a_mistyped_command_in_a_terminal_is_told_and_the_chat_goes_on(telling, typing, type_line):
    code, out, err = type_line("chat", piped="/dance\n/regenarate\n/dance with me\n/regenerate\nHello\n")
    assert (code, out) == (0, "A cat sat.\n")
    assert err.count("there is no command /dance") == 2
    assert "did you mean /regenerate?" in err
    assert "there is no answer yet" in err


@pytest.mark.parametrize("word", ["/quit", "/bye", "/q", "/Exit"])
def test_other_words_for_leaving(telling, type_line, word):
    assert type_line("chat", piped=f"{word}\nHello\n")[:2] == (0, "")


@pytest.mark.parametrize("word", ["exit", "Quit"])
def test_a_word_alone_leaves_where_a_person_types_it(telling, typing, type_line, monkeypatch, word):
    assert type_line("chat", piped=f"{word}\nHello\n")[:2] == (0, "")
    monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: False)
    assert type_line("chat", piped=f"{word}\n")[1] == "A cat sat.\n"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("/usr is full, why?", marks=pytest.mark.skipif(os.name == "nt", reason="there is none")),
        *("/etc/hosts", "/ hi", "// hi", "/2 of it", "/r/python is what?"),
    ],
)
def test_what_begins_with_a_slash_may_be_a_message(telling, type_line, line):
    assert type_line("chat", "-q", piped=line + "\n")[:2] == (0, "A cat sat.\n")


def test_the_system_message_is_shown_and_dropped(telling, type_line, storyteller_tokenizer):
    lines = "/system\n/system Be brief.\n/system\nYo\n/system off\n/system\nHi\n"
    _, _, err = type_line("chat", "-q", "--system", "Rhyme.", piped=lines)
    assert [line.partition("system message")[2] for line in err.splitlines()] == [
        *("): Rhyme.", "): Be brief.", "): Be brief.", ")", ")")
    ]
    assert "system" not in prompt_of(telling, storyteller_tokenizer)


def test_an_answer_that_does_not_come_again_leaves_the_last(telling, typing, type_line, storyteller_tokenizer):
    whole = telling.state.rewind

    def interrupted(*_):
        telling.state.rewind = whole
        raise KeyboardInterrupt

    telling.state.rewind = interrupted
    type_line("chat", piped="Hi\n/regenerate\nGo on\n")
    assert "Hi<|im_end|>\n<|im_start|>assistant\nA cat sat.<|im_end|>\n<|im_start|>user\nGo on" in prompt_of(
        telling, storyteller_tokenizer
    )


@pytest.mark.parametrize("command", ["chat", "run"])
def test_a_model_without_a_template_is_told_of(telling, type_line, monkeypatch, command):
    assert "chat template" not in type_line(command, piped="Hi\n")[2]
    whole = GGUFFile.get_str

    def without(file, key, *default):
        return "" if key == "tokenizer.chat_template" else whole(file, key, *default)

    monkeypatch.setattr(GGUFFile, "get_str", without)
    code, out, err = type_line(command, piped="Hi\n")
    assert (code, out) == (0, "A cat sat.\n")
    assert "has no chat template" in err.splitlines()[0]
    assert "template" not in type_line(command, "-q", piped="Hi\n")[2]


def test_a_person_is_told_that_the_model_is_a_toy(telling, type_line, monkeypatch):
    assert type_line("chat", piped="Hi\n")[2] == ""
    monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: True)
    told = type_line("chat", piped="/exit\n")[2].splitlines()[1]
    assert told.startswith("storyteller only tells short stories")
    assert type_line("chat", "-q", piped="/exit\n")[2] == ""


def test_a_path_is_no_command(telling, type_line):
    assert type_line("chat", "-q", piped="/etc/hosts is what?\n")[1] == "A cat sat.\n"


def test_a_message_that_outgrows_the_context_is_told_of_and_costs_only_its_answer(telling, type_line):
    long = "word " * 400 + "\n"
    code, out, err = type_line("chat", piped=f"Hi\n{long}{long}Ho\n{long}")
    assert (code, out) == (1, "A cat sat.\n" * 2)
    assert err.count("--ctx-full oldest") == 2
    assert err.count("not answered") == 3
    assert err.count("still too long") == 1


@pytest.mark.parametrize(("rule", "answers"), [("stop", 11), ("oldest", 50)])
def test_fifty_turns_go_on_to_the_end(telling, type_line, rule, answers):
    turns = "".join(f"Tell me story number {i}, please.\n" for i in range(50))
    code, out, err = type_line("chat", "--ctx-full", rule, piped=turns)
    assert (code, out) == (int(answers < 50), "A cat sat.\n" * answers)
    assert err.count("error:") == int(answers < 50)


@pytest.fixture
def typing(monkeypatch):
    """As if a person typed the turns in a terminal."""
    monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: True)
    monkeypatch.setattr(line_input, "is_interactive", lambda: False)


def interrupt_once(engine, position):
    """Ctrl-C as soon as so many ids are in the state."""
    whole = engine.append

    def interrupted(tokens):
        room = position - engine.position
        if not 0 <= room < len(tokens):
            return whole(tokens)
        engine.append = whole
        if room:
            whole(tokens[:room])
        raise KeyboardInterrupt

    engine.append = interrupted


def test_ctrl_c_ends_the_answer_and_not_the_chat(telling, typing, type_line, storyteller_tokenizer):
    begin = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    interrupt_once(telling, len(storyteller_tokenizer.encode(begin)) + 1)
    code, out, _ = type_line("chat", piped="Hi\nGo on\n")
    assert (code, out) == (0, "A cat\nA cat sat.\n")
    assert "assistant\nA cat<|im_end|>\n<|im_start|>user\nGo on" in prompt_of(telling, storyteller_tokenizer)


def test_ctrl_c_before_the_first_word_takes_the_question_back(telling, typing, type_line, storyteller_tokenizer):
    interrupt_once(telling, 3)
    type_line("chat", piped="Hi\nHello\n")
    assert "Hi" not in prompt_of(telling, storyteller_tokenizer)


def test_an_overflow_ends_the_turn_and_not_the_chat(telling, typing, type_line):
    code, out, err = type_line("chat", piped="word " * 400 + "\nHi\n")
    assert (code, out) == (0, "A cat sat.\n")
    assert "/clear" in err
    assert ContextOverflowError.__name__ not in err


def test_ctrl_c_in_a_piped_chat_exits_with_130(telling, type_line):
    interrupt_once(telling, 3)
    assert type_line("chat", piped=TURNS)[0] == 130


def test_history_is_private(tmp_path):
    path = tmp_path / "state" / "history"
    assert line_input._private_file(path) == path
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o600


def test_the_embedded_model_chats():
    done = subprocess.run(
        [sys.executable, "-m", "qcli", "chat", "--verbose", "-n", "8", "--temperature", "0"],
        input=b"Tell me a story.\nGo on.\n", capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0
    assert len(done.stdout.decode().splitlines()) >= 2
    assert "cached" in done.stderr.decode().splitlines()[-1]
