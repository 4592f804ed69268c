"""Thoughts that are closed before the model does so: the ids that must come, whatever had come before."""

from __future__ import annotations

from pathlib import Path

import pytest
import vocabularies

from qcli.runtime.thought_closer import ThoughtCloser
from qcli.text.think_tags import find_think_tags
from qcli.text.thoughts import Thought, answer_parser
from qcli.text.tokenizer import Tokenizer

HARMONY = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"]
FINAL = "<|end|><|start|>assistant<|channel|>final<|message|>"
ENOUGH = "Enough.</think>\n\n"


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """A closer of a vocabulary with such special tokens, and its tokenizer."""

    def make(special=("<think>", "</think>"), prompt="<think>\n", words=ENOUGH, budget=None):
        path: Path = tmp_path_factory.mktemp("vocabulary") / "model.gguf"
        tokenizer = Tokenizer.from_gguf(vocabularies.of_bytes(path, dict.fromkeys(special, 3)))
        parser = answer_parser(tokenizer, find_think_tags(tokenizer, "<think></think>"), prompt)
        return ThoughtCloser(parser, lambda: tokenizer.encode(words), budget), tokenizer

    return make


def written(closer, ids, most=200):
    """What is written if the model wants these ids: all of it, and the ids."""
    wanted = list(ids)
    pieces: list[str] = []
    said: list[int] = []
    while len(said) < most:
        forced = closer.next_id()
        if forced is None and not wanted:
            break
        said.append(wanted.pop(0) if forced is None else forced)
        pieces += closer.push(said[-1])
    return "".join([*pieces, *closer.flush()]), said


TOKENS = ("<think>", "</think>")  # tags that are tokens; else they are spelled, and there is one thought


@pytest.mark.parametrize(
    ("prompt", "said", "budget", "expected", "tags"),
    [
        (*case, tags)
        for tags in (TOKENS, ())
        for case in [
            (
                "<think>\n",
                "hmmmmm",
                3,
                f"hmm{ENOUGH}mmm",
            ),  # what the model wanted to think comes after: it does not know
            ("<think>\n", "hm</think>Yes.", 3, "hm</think>Yes."),
            ("", "<think>hmmm", 2, f"<think>hm{ENOUGH}mm"),
            ("", "Yes, of course.", 2, "Yes, of course."),
            ("<think>\n", "hé!", 2, f"hé{ENOUGH}!"),  # é is two bytes, of which the budget would cut the second
        ]
    ]
    + [
        (
            "",
            "<think>a</think>b<think>cde",
            2,
            f"<think>a</think>b<think>cd{ENOUGH}e",
            TOKENS,
        ),  # the second counts anew
        ("", "<think>abc<think>cde", 2, f"<think>ab{ENOUGH}c<think>cd{ENOUGH}e", TOKENS),
    ],
)
def test_a_thought_ends_when_its_tokens_are_used_up(make, prompt, said, budget, expected, tags):
    closer, tokenizer = make(tags, prompt, budget=budget)
    assert written(closer, tokenizer.encode(said))[0] == expected


def test_a_tag_that_is_half_written_is_waited_for(make):
    closer, tokenizer = make((), budget=4)
    assert written(closer, tokenizer.encode("hm</think>Yes."))[0] == "hm</think>Yes."
    closer, tokenizer = make((), budget=4)
    endless = written(closer, tokenizer.encode("hm" + "</" * 20))[0]
    assert ENOUGH in endless[:40]


def test_gpt_oss_goes_to_its_final_channel(make):
    closer, tokenizer = make(HARMONY, "<|start|>assistant", FINAL, budget=2)
    text, ids = written(closer, tokenizer.encode("<|channel|>analysis<|message|>hmmm"))
    assert text == "<think>hm</think>mm"
    assert tokenizer.decode(ids, special=True) == f"<|channel|>analysis<|message|>hm{FINAL}mm"


def test_enough_is_enough_from_here_on_and_nothing_outside_of_a_thought(make):
    closer, tokenizer = make()
    a, b, c = tokenizer.encode("abc")
    assert "".join([*closer.push(a)]) == "a"
    closer.end_thought()
    assert written(closer, [b])[0] == f"{ENOUGH}b"
    closer.end_thought()  # the answer goes on, and so may the next thought
    assert written(closer, [c, *tokenizer.encode("<think>abc")])[0] == "c<think>abc"


@pytest.mark.parametrize("words", ["", "no end"])
def test_words_that_close_nothing_come_once_in_a_budget(make, words):
    closer, tokenizer = make(words=words, budget=3)
    assert written(closer, tokenizer.encode("abcdef"))[0] == f"abc{words}def{words}"


def test_an_answer_that_was_interrupted_goes_on_as_if_it_had_not_been(make):
    said = "<think>hé hm</think>Yes.<think>and more"
    closer, tokenizer = make(prompt="", budget=2)
    whole = written(closer, tokenizer.encode(said))[1]
    closer, _ = make(prompt="", budget=2)
    forced = []
    for id in whole:
        forced.append(closer.next_id())
        [*closer.push(id)]
    assert forced.count(None) == len(tokenizer.encode(said))
    for at in range(len(whole)):
        again, _ = make(prompt="", budget=2)
        for id in whole[:at]:
            [*again.push(id)]
        assert again.next_id() == forced[at]


def test_an_answer_that_was_begun_without_a_budget_is_closed_at_once(make):
    closer, tokenizer = make(budget=3)
    for id in tokenizer.encode("a long thought"):
        [*closer.push(id)]
    assert written(closer, [])[0] == ENOUGH


def test_pieces_are_thoughts_and_answers_as_ever(make):
    closer, tokenizer = make(budget=1)
    pieces = [piece for id in tokenizer.encode(f"h{ENOUGH}Yes") for piece in closer.push(id)]
    assert "".join(piece for piece in pieces if not isinstance(piece, Thought)) == "\n\nYes"
    assert not closer.thinking
