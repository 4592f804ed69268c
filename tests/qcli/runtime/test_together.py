"""Answers that are given together say what they say alone."""

from __future__ import annotations

from typing import Any

import pytest

from qcli import LLM
from qcli.errors import ContextOverflowError, QcliError

PROMPTS = [
    "Once upon a time",
    "One day a fox",
    "The king",
    "There was a little girl who",
    "A dog and a cat",
    "It was night",
]


def options(i):
    return {"max_tokens": 20 + 7 * i, "temperature": 0.8, "seed": i, "stop": ["never comes"]}


@pytest.fixture(scope="module")
def llm():
    with LLM(threads=2, ctx=256, draft="off") as llm:
        yield llm


@pytest.fixture(scope="module")
def alone(llm):
    found = []
    for i, prompt in enumerate(PROMPTS):
        answer = llm.generate(prompt, **options(i))
        found.append(("".join(answer), list(answer.ids), llm.stats.finish_reason))
    return found


@pytest.fixture
def beside():
    """A model whose answers are given together."""
    with LLM(threads=2, ctx=256, draft="off") as llm:
        yield llm


def answered(llm, most, order):
    together, waiting = llm.together(most), list(order)
    running, ends = dict[int, Any](), dict[int, Any]()
    while waiting or running:
        while waiting and not together.is_full:
            i = waiting.pop(0)
            running[i] = llm.generate(PROMPTS[i], **options(i)), []
        for i, (answer, said) in list(running.items()):
            said += together.pieces(answer)
            if together.is_over(answer):
                together.end(answer)
                ends[i] = ("".join(said), list(answer.ids), answer.stats.finish_reason)
                del running[i]
        together.step()
    return [ends[i] for i in sorted(ends)]


@pytest.mark.parametrize("most", [1, 2, 4, 6])
def test_neighbours_do_not_show(beside, alone, most):
    assert answered(beside, most, range(6)) == alone
    assert answered(beside, most, [5, 2, 0, 4, 1, 3]) == alone


def to_its_end(together, answer, others=()):
    said = []
    while not together.is_over(answer):
        for other, heard in others:
            heard += together.pieces(other)
        said += together.pieces(answer)
        together.step()
    return "".join(said)


def test_one_that_is_ended_early_frees_its_slot(beside, alone):
    together = beside.together(2)
    first, second = (beside.generate(PROMPTS[i], **options(i)) for i in (0, 1))
    with pytest.raises(QcliError, match="2 answers are given at a time"):
        beside.generate("x")
    heard: list[str] = []
    for _ in range(4):
        list(together.pieces(first))
        heard += together.pieces(second)
        together.step()
    together.end(first)
    third = beside.generate(PROMPTS[2], **options(2))
    assert (to_its_end(together, third, [(second, heard)]), third.stats.finish_reason) == (alone[2][0], alone[2][2])
    assert "".join(heard) + to_its_end(together, second) == alone[1][0]


def test_an_error_ends_one_answer_alone(beside, alone):
    together = beside.together(2)
    other = beside.generate(PROMPTS[3], **options(3))
    failing = beside.generate("word " * 400)
    with pytest.raises(ContextOverflowError):
        list(together.pieces(failing))
    together.end(failing)
    assert to_its_end(together, other) == alone[3][0]


def test_chats_with_a_form_to_keep_to(beside, llm):
    asked = [{"role": "user", "content": "Tell me of a fox."}]
    held = {"choices": ["a red fox", "a blue fox"], "temperature": 0}
    expected = "".join(llm.chat(asked, **held)), "".join(llm.chat(asked, max_tokens=20, temperature=0))
    together = beside.together(3)
    answers = [beside.chat(asked, **held), beside.chat(asked, max_tokens=20, temperature=0)]
    said: tuple[list[str], list[str]] = [], []
    while not all(map(together.is_over, answers)):
        for answer, pieces in zip(answers, said, strict=True):
            pieces += together.pieces(answer)
        together.step()
    assert tuple(map("".join, said)) == expected
