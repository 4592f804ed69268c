"""Answers that are given together say what they say alone."""

from __future__ import annotations

import pytest

from qcli import LLM
from qcli.errors import QcliError
from qcli.runtime.answer_options import checked
from qcli.runtime.checkpoint import NO_MARKS
from qcli.runtime.generation import Generation, Prompt
from qcli.runtime.stats import Stats
from qcli.runtime.together import Together

PROMPTS = ["Once upon a time", "One day a fox", "The king", "There was a little girl who", "A dog and a cat", "It was night"]


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


def generation(llm, i, prompt=None):
    wanted, stats = checked(options(i)), Stats()
    ids = llm.tokenizer.prompt(prompt or PROMPTS[i])
    given = Prompt(ids, PROMPTS[i], llm.tokenizer.end_ids, NO_MARKS), wanted, llm.sampling(**wanted.sampling)
    return Generation(llm.tokenizer, llm.think_tags, *given, lambda: [], None, stats), stats


def answered(llm, most, order):
    together, waiting = Together(llm._cache, most), list(order)
    texts, ends, numbers = {i: "" for i in order}, {}, {}
    while waiting or numbers:
        while waiting and not together.is_full:
            i = waiting.pop(0)
            (one, stats), text = generation(llm, i), together.text()
            numbers[together.begin(one.pieces(text, None), text)] = i, one, stats
        for number, piece in together.go_on():
            i, one, stats = numbers[number]
            if piece is None:
                ends[i] = (texts[i], list(one.said), stats.finish_reason)
                del numbers[number]
            else:
                texts[i] += piece
    return [ends[i] for i in sorted(ends)]


@pytest.mark.parametrize("most", [1, 2, 4, 6])
def test_neighbours_do_not_show(llm, alone, most):
    assert answered(llm, most, range(6)) == alone
    assert answered(llm, most, [5, 2, 0, 4, 1, 3]) == alone


def test_one_that_is_ended_early_frees_its_slot(llm, alone):
    together = Together(llm._cache, 2)
    numbers = []
    for i in (0, 1):
        (one, _), text = generation(llm, i), together.text()
        numbers.append(together.begin(one.pieces(text, None), text))
    assert together.is_full
    for _ in range(4):
        list(together.go_on())
    together.end(numbers[0])
    assert not together.is_full
    (one, stats), text = generation(llm, 2), together.text()
    third, said = together.begin(one.pieces(text, None), text), ""
    while True:
        told = list(together.go_on())
        said += "".join(piece for number, piece in told if number == third and piece)
        if (third, None) in told:
            break
    assert (said, stats.finish_reason) == (alone[2][0], alone[2][2])


def test_an_error_ends_one_answer_alone(llm, alone):
    together, told = Together(llm._cache, 2), []
    (long, _), text = generation(llm, 0, "word " * 400), together.text()
    failing = together.begin(long.pieces(text, None), text)
    (one, _), text = generation(llm, 3), together.text()
    other = together.begin(one.pieces(text, None), text)
    while (other, None) not in told:
        told += together.go_on()
    (problem,) = [piece for number, piece in told if number == failing]
    assert isinstance(problem, QcliError)
    assert "".join(piece for number, piece in told if number == other and piece) == alone[3][0]
