"""Thoughts and answers: ids in, pieces out, joined as they are marked."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vocabularies
from fake_engine import FakeEngine, scripted
from hypothesis import given
from hypothesis import strategies as st

from qcli import console
from qcli.commands.answer import discard, show
from qcli.runtime.generate import generate_ids, generate_text
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.sampler import Sampler
from qcli.runtime.sampling import Sampling
from qcli.runtime.stats import Stats
from qcli.text.stop_strings import StopStrings
from qcli.text.think_tags import find_think_tags
from qcli.text.thoughts import (
    AnswerParser,
    HarmonyParser,
    SpelledTagParser,
    ThinkTagParser,
    Thought,
    answer_parser,
    without_tags,
    without_thoughts,
)
from qcli.text.tokenizer import Tokenizer

HARMONY = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"]
THINK = ["<think>", "</think>"]


def tokenizer_with(path: Path, special: list[str]) -> Tokenizer:
    """A token for each byte, one merge, and control tokens."""
    return Tokenizer.from_gguf(vocabularies.of_bytes(path, dict.fromkeys(special, 3)))


@pytest.fixture(scope="module")
def harmony(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_with(tmp_path_factory.mktemp("harmony") / "vocab.gguf", HARMONY)


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_with(tmp_path_factory.mktemp("thinking") / "vocab.gguf", THINK)


def read(tokenizer: Tokenizer, text: str, prompt: str = "<|start|>", template: str = "") -> tuple[str, str, str]:
    """Thoughts, answer, and all of it."""
    parser = answer_parser(tokenizer, find_think_tags(tokenizer, template), prompt)
    pieces = [piece for id in tokenizer.encode(text) for piece in parser.push(id)] + list(parser.flush())
    thoughts = "".join(piece for piece in pieces if isinstance(piece, Thought))
    return thoughts, "".join(piece for piece in pieces if not isinstance(piece, Thought)), "".join(pieces)


def test_a_thought_between_marks(thinking: Tokenizer) -> None:
    said = "<think>\nhm é\n</think>\n\nYes."
    assert read(thinking, said) == ("<think>\nhm é\n</think>", "\n\nYes.", said)
    assert read(thinking, "Yes.") == ("", "Yes.", "Yes.")


def test_a_channel_for_thoughts(tmp_path: Path) -> None:
    """Gemma 4's: the name after the token is not shown; where another one follows, all of it is."""
    gemma = tokenizer_with(tmp_path / "vocab.gguf", ["<|channel>", "<channel|>"])
    said = "<|channel>thought\nhm é\n<channel|>Yes."
    assert read(gemma, said) == ("<think>\nhm é\n</think>", "Yes.", "<think>\nhm é\n</think>Yes.")
    assert read(gemma, "<|channel>though<channel|>Yes.")[0] == "<think>though</think>"
    assert read(gemma, "<|channel>thick")[0] == "<think>thick"
    assert read(gemma, "hm<channel|>Yes.", "model\n<|channel>thought\n")[:2] == ("hm</think>", "Yes.")
    assert read(gemma, "thought Yes.", "model\n<|channel>thought\n<channel|>")[:2] == ("", "thought Yes.")


def test_a_thought_that_the_template_opens_or_closes(thinking: Tokenizer) -> None:
    assert read(thinking, "hm</think>Yes.", "assistant\n<think>\n") == ("hm</think>", "Yes.", "hm</think>Yes.")
    assert read(thinking, "Yes.", "assistant\n<think></think>\n") == ("", "Yes.", "Yes.")
    assert read(thinking, "Yes.", "<\ufdd0think> what is that?\nassistant\n")[0] == ""  # the user's own words


def test_marks_that_are_spelled_with_ordinary_tokens(tmp_path: Path) -> None:
    plain, template = tokenizer_with(tmp_path / "vocab.gguf", []), "{{ content.split('</think>') }}<think>"
    said = "\n<think>hm </thin </think>\nYes, <think> is a mark."
    expected = ("<think>hm </thin </think>", "\nYes, <think> is a mark.", said.lstrip("\n"))
    assert read(plain, said, template=template) == expected
    assert read(plain, "hm</think>Yes.", "<think>\n", template) == ("hm</think>", "Yes.", "hm</think>Yes.")
    assert read(plain, "<thin ice>", template=template) == ("", "<thin ice>", "<thin ice>")
    assert read(plain, "<think>hm </th", template=template)[0] == "<think>hm </th"
    assert read(plain, " <", template=template) == ("", " <", " <")


@pytest.mark.parametrize(
    ("open", "close"),
    [
        ("[THINK]", "[/THINK]"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<seed:think>", "</seed:think>"),
        ("◁think▷", "◁/think▷"),
        ("<reasoning>", "</reasoning>"),
    ],
)
def test_marks_of_other_families_are_learned_from_the_vocabulary(tmp_path: Path, open: str, close: str) -> None:
    tokenizer = tokenizer_with(tmp_path / "vocab.gguf", [open, close])
    assert read(tokenizer, f"{open}hm{close}Yes.") == ("<think>hm</think>", "Yes.", "<think>hm</think>Yes.")


def test_a_lonely_mark_is_no_pair(tmp_path: Path) -> None:
    assert find_think_tags(tokenizer_with(tmp_path / "vocab.gguf", ["<|think|>", "[/THINK]"]), "") == []


def test_a_broken_character_stays_on_its_side(thinking: Tokenizer) -> None:
    half = thinking.encode("é")[0]
    parser = answer_parser(thinking, find_think_tags(thinking, ""), "")
    ids = [*thinking.encode("<think>"), half, *thinking.encode("</think>"), half]
    pieces = [piece for id in ids for piece in parser.push(id)] + list(parser.flush())
    assert [piece for piece in pieces if piece] == ["<think>", "\ufffd", "</think>", "\ufffd"]
    assert [isinstance(piece, Thought) for piece in pieces if piece] == [True, True, True, False]


def test_channels(harmony: Tokenizer) -> None:
    said = "<|channel|>analysis<|message|>The user greets.<|end|><|start|>assistant<|channel|>final<|message|>Hello é!"
    thought = "<think>The user greets.</think>"
    assert read(harmony, said) == (thought, "Hello é!", f"{thought}Hello é!")


def test_other_channels_are_no_answer(harmony: Tokenizer) -> None:
    call = "<|channel|>commentary to=functions.f <|message|>{}"
    assert read(harmony, call) == ("<think>{}</think>", "", "<think>{}</think>")
    several = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|>"
    assert read(harmony, several)[0] == "<think>ab</think>"


def test_an_answer_without_channels_is_shown_all_the_same(harmony: Tokenizer) -> None:
    assert read(harmony, "Hello") == ("", "Hello", "Hello")
    assert read(harmony, "<|message|>Hello")[2] == "<think>Hello</think>"
    assert read(harmony, "") == ("", "", "")
    assert read(harmony, "<|channel|>final<|message|>Hello<|end|><|start|>assist")[1] == "Hello"


@pytest.mark.parametrize(
    ("prompt", "said", "thoughts", "answer"),
    [
        ("Once upon", " a time", "", " a time"),
        ("Once upon", " a<|channel|>analysis<|message|>hm", "<think>hm</think>", " a"),
        ("<|start|>user<|message|>Hi", " you", "", " you"),
        ("<|start|>user<|message|>Hi<|end|><|start|>assistant", "Hello", "", "Hello"),
        ("<|start|>assistant<|channel|>", "final<|message|>Hello", "", "Hello"),
        ("<|start|>assistant<|channel|>ana", "lysis<|message|>hm", "<think>hm</think>", ""),
        ("<|start|>assistant<|channel|>analysis<|message|>", "hm", "hm</think>", ""),
        (
            "<|start|>assistant<|channel|>analysis<|message|>h",
            "m<|end|><|start|>assistant<|channel|>final<|message|>Yes",
            "m</think>",
            "Yes",
        ),
        ("<|start|>assistant<|channel|>final<|message|>Hello", " you", "", " you"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant", "<|channel|>final<|message|>Yes", "", "Yes"),
    ],
)
def test_a_raw_prompt_is_gone_on_with_where_it_ends(
    harmony: Tokenizer, prompt: str, said: str, thoughts: str, answer: str
) -> None:
    assert read(harmony, said, prompt)[:2] == (thoughts, answer)


@pytest.mark.parametrize(
    ("prompt", "open"),
    [
        ("<think>", True),
        ("Say it. <think>\n", True),
        ("What does <think> mean?", False),
        ("<|im_start|>assistant\n<think>\nLet me", True),
        ("<|im_start|>user\nWhat is <think>?<|im_end|>\n<|im_start|>assistant\n", False),
        ("<|im_start|>assistant\n<think>a</think>", False),
    ],
)
@pytest.mark.parametrize("tags", [THINK, []])
def test_a_raw_prompt_opens_a_thought_at_its_end_or_in_a_message(
    tmp_path: Path, tags: list[str], prompt: str, open: bool
) -> None:
    tokenizer = tokenizer_with(tmp_path / "vocab.gguf", ["<|im_start|>", "<|im_end|>", *tags])
    thoughts, answer, _ = read(tokenizer, "hm", prompt, "<think></think>")
    assert (thoughts, answer) == (("hm", "") if open else ("", "hm"))


def test_which_parser(harmony: Tokenizer, thinking: Tokenizer, tmp_path: Path) -> None:
    def of(tokenizer: Tokenizer, template: str = "") -> type[AnswerParser]:
        return type(answer_parser(tokenizer, find_think_tags(tokenizer, template), ""))

    plain = tokenizer_with(tmp_path / "vocab.gguf", [])
    assert of(harmony) is HarmonyParser
    assert of(thinking) is ThinkTagParser
    assert of(plain) is AnswerParser
    assert of(plain, "{{ content.split('</think>') }}<think>") is SpelledTagParser


@given(st.lists(st.integers(0, 261)))
def test_no_ids_are_too_odd(harmony: Tokenizer, thinking: Tokenizer, ids: list[int]) -> None:
    for tokenizer in (harmony, thinking):
        parser = answer_parser(tokenizer, find_think_tags(tokenizer, ""), "")
        for id in ids:
            list(parser.push(id % tokenizer.vocab_size))
        list(parser.flush())


def test_stop_strings_are_looked_for_in_the_answer_alone(thinking: Tokenizer) -> None:
    ids = thinking.encode("<think>stop a</think>b stop c")
    engine = FakeEngine(thinking.vocab_size, 512, following=scripted(1, ids))
    sampler = Sampler(Sampling(temperature=0), thinking.vocab_size)
    parser = answer_parser(thinking, find_think_tags(thinking, ""), "")
    tokens = generate_ids(PrefixCache(engine), [0], sampler, max_tokens=99)
    said = generate_text(tokens, parser, StopStrings(["stop"]), Stats(), [])
    assert "".join(said) == "<think>stop a</think>b "


def pieces_of(*pieces: str) -> Iterator[Any]:
    yield from pieces


def test_the_terminal_shows_thoughts_apart(capsys: pytest.CaptureFixture[str]) -> None:
    bar = console.status("x", quiet=True)
    thought = [Thought("<think>"), Thought("h\n"), Thought("\nm"), Thought("</think>"), Thought("\n")]
    said = show(pieces_of(*thought, "Yes", "\n."), bar)
    shown = capsys.readouterr()
    assert said == ("Yes\n.", False)
    assert (shown.out, shown.err) == ("Yes\n.", "<think>h\n\nm</think>\n\n")
    show(pieces_of(Thought("hm"), "Yes"), bar, aside=discard)
    assert capsys.readouterr() == ("Yes", "")


def test_thoughts_are_dim_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    console.aside("hm\x1b[31m")
    assert screen.getvalue() == "\x1b[2mhm\ufffd[31m\x1b[0m"


def test_thoughts_out_of_the_history() -> None:
    answer = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes <think>.", "more": 1}
    assert without_thoughts(answer) == {"role": "assistant", "content": "Yes <think>.", "more": 1}
    for message in ({"role": "user", "content": "<think>a</think>"}, {"role": "assistant", "content": None}):
        assert without_thoughts(message) == message
    assert without_tags("<think>\nhm\n</think>") == "hm"
