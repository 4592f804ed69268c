"""--think, /think and the setting: what is said, what is refused, and what is seen of thoughts that are hidden."""

from __future__ import annotations

import pytest
from terminal import Terminal

from qcli import console
from qcli.commands.answer import show, thoughts_aside
from qcli.commands.folded_thoughts import FoldedThoughts
from qcli.host import folders
from qcli.runtime.stats import Stats
from qcli.text import think_setting
from qcli.text.chat_template import ChatTemplate
from qcli.text.think_tags import find_think_tags
from qcli.text.thoughts import Thought

SAT = "A cat sat.\n"
THINKS = """\
{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}
{{- '<think></think>' if enable_thinking is defined and not enable_thinking }}{{ reasoning_effort }}"""
CANNOT = THINKS.replace("{{ reasoning_effort }}", "")


@pytest.fixture
def thoughtful(telling, monkeypatch):
    """The model has a template that can have it think, not or much."""
    monkeypatch.setattr("qcli.llm.LLM.template", ChatTemplate(THINKS))
    monkeypatch.setattr("qcli.llm.find_think_tags", lambda tokenizer, template: find_think_tags(tokenizer, THINKS))


@pytest.mark.parametrize("command", ["run", "chat"])
@pytest.mark.parametrize("value", ["maybe", "-1", "1.5", ""])
def test_what_nobody_means_is_refused_before_a_model_is_loaded(refused, command, value):
    refused([command, "-m", "missing.gguf", "--think", value], 2, "--think cannot be")


@pytest.mark.parametrize("line", [["run", "Hi"], ["chat"]])
def test_a_model_that_does_not_think_says_so(telling, type_line, line):
    code, out, err = type_line(*line, "--think", "high", piped="Hi\n")
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "error: think cannot be high: this model does not think"
    for harmless in ("off", "hide", "0", "100", "default"):
        assert type_line(*line, "--think", harmless, "-q", piped="Hi\n") == (0, SAT, "")


def test_a_template_without_efforts_says_what_there_is(thoughtful, type_line, monkeypatch):
    monkeypatch.setattr("qcli.llm.LLM.template", ChatTemplate(CANNOT))
    code, _, err = type_line("run", "Hi", "--think", "low")
    assert code == 2
    assert "hint: give default, on, off, hide, or a number of tokens" in err


def test_a_text_without_a_template_cannot_be_told_to_think(telling, type_line, monkeypatch):
    code, _, err = type_line("run", "Hi", "--raw", "--think", "off")
    assert (code, err.splitlines()[0]) == (2, "error: --raw and --think off cannot be used together")
    assert type_line("run", "Hi", "--raw", "--think", "9", "-q") == (0, SAT, "")
    monkeypatch.setenv("QCLI_THINK", "off")  # for conversations
    assert type_line("run", "Hi", "--raw", "-q") == (0, SAT, "")


def test_an_answer_that_is_cut_in_its_thought_is_told_of(thoughtful, type_line, monkeypatch):
    monkeypatch.setattr("qcli.llm.LLM.template", ChatTemplate(THINKS.replace("{{ reasoning_effort }}", "<think>")))
    for line in (["run", "Hi"], ["chat"]):
        assert "cut while it was thinking, before the answer" in type_line(*line, "-n", "2", piped="Hi\n")[2]
        assert "cut while" not in type_line(*line, "-n", "2", "--think", "off", piped="Hi\n")[2]


def test_a_setting_holds_where_nothing_is_typed_and_says_where_it_stands(thoughtful, telling, type_line, monkeypatch):
    assert type_line("config", "set", "think", "7")[0] == 0
    assert (folders.config() / "config.toml").read_text("utf-8") == "think = 7\n"
    assert type_line("run", "Hi", "-q") == (0, SAT, "")
    monkeypatch.setenv("QCLI_THINK", "high")
    monkeypatch.setattr("qcli.llm.LLM.template", ChatTemplate(CANNOT))
    code, _, err = type_line("run", "Hi")
    assert (code, err.splitlines()[0]) == (2, "error: QCLI_THINK: think cannot be high with this model")
    assert type_line("run", "Hi", "-q", "--think", "default") == (0, SAT, "")
    monkeypatch.setenv("QCLI_THINK", "maybe")
    assert type_line("run", "Hi")[2].startswith("error: QCLI_THINK cannot be maybe\n")


def test_it_is_shown_and_changed_in_a_chat(thoughtful, type_line, monkeypatch):
    monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: True)
    monkeypatch.setattr("qcli.line_input.is_interactive", lambda: False)
    turns = [
        "/think",
        "/think off",
        "/set think 200",
        "/THINK hide",
        "/think maybe",
        "/set think",
        "/think default",
        "Hi",
    ]
    code, out, err = type_line("chat", "--think", "low", piped="".join(f"{turn}\n" for turn in turns))
    assert (code, out) == (0, SAT)
    said = [line for line in err.splitlines() if "think" in line]
    assert said == [
        "think is low; /think takes default, on, off, hide, low, medium, high, or a number of tokens",
        "think is now off",
        "think is now 200",
        "think is now hide",
        "error: think cannot be maybe",
        f"think hide  {think_setting.HELP}",
        "think is now default",
    ]


def test_another_model_thinks_as_it_can(thoughtful, telling, type_line, monkeypatch, storyteller, tmp_path):
    monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: True)
    monkeypatch.setattr("qcli.line_input.is_interactive", lambda: False)
    monkeypatch.setattr(
        "qcli.llm.LLM.template", property(lambda llm: ChatTemplate(THINKS if llm.name == "storyteller" else CANNOT))
    )
    other = tmp_path / "other.gguf"
    other.write_bytes(storyteller.read_bytes())
    code, out, err = type_line("chat", "--think", "high", piped=f"Hi\n/model {other}\n/set think\nHo\n")
    assert (code, out) == (0, SAT * 2)
    assert "think cannot be high with this model; from now on it is default" in err
    assert "\nthink default  " in err


@pytest.fixture
def folded(monkeypatch):
    """Shows pieces of an answer with hidden thoughts in a terminal of some width; stderr, and what was told of tokens."""

    def run(*pieces, columns=80, stats=None):
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr("qcli.console.columns", lambda stream: columns)
        monkeypatch.setattr("qcli.commands.folded_thoughts._REDRAWN_S", 0)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "1")
        stats = Stats(decode_steps=62, decode_s=2.0)

        def answer():
            for piece in pieces:
                stats.thought_tokens += isinstance(piece, Thought)
                yield piece

        written: list[str] = []
        show(answer(), console.status("x", quiet=True), written.append, FoldedThoughts(lambda: stats))
        return terminal.getvalue(), "".join(written)

    return run


def test_hidden_thoughts_are_one_line_which_goes_away(folded):
    seen, answer = folded(*map(Thought, ("<think>", "hm", "</think>")), "Yes", ".")
    lines = seen.split("\r\x1b[K")
    assert lines[:4] == [
        "",
        "thinking · 1 token · 31 tok/s",
        "thinking · 2 tokens · 31 tok/s",
        "thinking · 3 tokens · 31 tok/s",
    ]
    assert lines[4].startswith("thought for 0")
    assert lines[4].endswith(" s, 3 tokens\n\n")
    assert answer == "Yes."


def test_the_line_never_wraps(folded):
    for columns in (8, 19, 20, 30):
        seen, _ = folded(Thought("hm"), columns=columns)
        assert all(len(line) < columns for line in seen.split("\r\x1b[K")[1:-1])
    assert "thinking · 1 token\r" in folded(Thought("hm"), columns=20)[0]


def test_a_second_thought_is_counted_by_itself_and_an_empty_one_leaves_nothing(folded):
    hm, tags = Thought("hm"), map(Thought, ("<think>", "\n", "</think>"))
    assert folded(hm, hm, "Yes", hm, ".")[0].split("\r\x1b[K")[-1].endswith(" s, 1 token\n\n")
    assert "thought for" not in folded(*tags, "Yes")[0]


def test_an_answer_that_ends_within_a_thought_leaves_no_line(folded):
    assert "\r\x1b[Kthought for" in folded(Thought("hm"))[0]
    assert folded("Yes")[0] == ""


def test_who_is_told_of_thoughts():
    assert isinstance(thoughts_aside(None, "hide", quiet=False), FoldedThoughts)
    assert thoughts_aside(None, "on", quiet=False) is console.aside
    assert thoughts_aside(None, "hide", quiet=True)("hm") is None
