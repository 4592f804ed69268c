"""Several questions at a time: the answers that each would get alone."""

from __future__ import annotations

import gc
import time
import weakref
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from qcli import LLM
from qcli.errors import ContextOverflowError, ModelNotFoundError
from qcli.protocol.question import Question
from qcli.runtime.together import Together
from qcli.serving.answers import Begun, Done, Failed, Said, Working
from qcli.serving.several_at_a_time import SeveralAtATime

PROMPTS = [
    f"{who} went to the {where}" for who in ("A fox", "The king", "Anna") for where in ("sea", "shop", "old tree")
]


def load(name, progress):
    if name not in (None, "storyteller", "other"):
        raise ModelNotFoundError(f'there is no model "{name}"', "name another")
    return LLM(threads=2, ctx=256, keep="shared", progress=progress)


def question(i, **more):
    options = {"max_tokens": 12 + 5 * i, "temperature": 0.8, "seed": i}
    return Question(**{"prompt": PROMPTS[i], "options": options} | more)


@pytest.fixture
def answers():
    made = []

    def make(parallel, **more):
        made.append(SeveralAtATime(load, parallel=parallel, **more))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def heard(answers, questions):
    """The texts, and the last that was told, of each question."""
    told: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    for i, asked in enumerate(questions):
        answers.submit(asked, lambda event, i=i: told.put((i, event)))
    found = {i: SimpleNamespace(text="", last=None, begun=0) for i in range(len(questions))}
    while any(one.last is None for one in found.values()):
        i, event = told.get(timeout=60)
        assert found[i].last is None
        if isinstance(event, Said):
            assert found[i].begun == 1
            found[i].text += event.piece
        found[i].begun += isinstance(event, Begun)
        found[i].last = event if isinstance(event, Done | Failed) else None
    return [found[i] for i in range(len(questions))]


def test_the_same_answers_in_any_order(answers):
    questions = [question(i) for i in range(len(PROMPTS))]
    alone = heard(answers(1), questions)
    for parallel in (2, 5):
        some = heard(answers(parallel), questions)
        assert [one.text for one in some] == [one.text for one in alone]
        assert [one.last.stats.finish_reason for one in some] == [one.last.stats.finish_reason for one in alone]
    turned = heard(answers(4), questions[::-1])
    assert [one.text for one in turned[::-1]] == [one.text for one in alone]


def test_one_that_goes_away_frees_its_place(answers):
    group, told = answers(2), SimpleQueue[Any]()
    long = {"max_tokens": 200, "temperature": 0.8, "seed": 1, "stop_loops": False}
    tickets = [group.submit(question(i, options=long), told.put) for i in range(2)]
    while not isinstance(told.get(timeout=60), Said):
        pass
    waiting = SimpleQueue[Any]()
    group.submit(question(2), waiting.put)
    for ticket in tickets:
        ticket.cancel()
    while not isinstance(waiting.get(timeout=60), Done):
        pass
    deadline = time.monotonic() + 60
    while group.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (group.running, group.waiting) == (0, 0)


def test_what_is_wrong_with_one_is_told_to_it_alone(answers):
    alone = heard(answers(1), [question(4)])
    found = heard(answers(3), [question(0, prompt="word " * 300), question(4), question(1, model="nowhere")])
    assert isinstance(found[0].last.problem, ContextOverflowError)
    assert found[1].text == alone[0].text
    assert "nowhere cannot be loaded: there is no model" in found[2].last.problem.message


def test_another_model_waits_until_nobody_needs_the_one_that_is_there(answers):
    questions = [question(0), question(1, model="other"), question(2), question(3, model="other")]
    found = heard(answers(3), questions)
    assert [one.text for one in found] == [one.text for one in heard(answers(1), questions)]


def test_of_two_models_one_is_in_memory():
    states: list[Any] = []

    def load_one(name, progress):
        assert not [state for state in states if state() is not None]
        llm = load(name, progress)
        states.append(weakref.ref(llm.engine.state))
        return llm

    group = SeveralAtATime(load_one, parallel=3)
    group.start("storyteller")
    gc.disable()
    try:
        for name in ("other", "storyteller"):
            found = heard(group, [question(i, model=name) for i in range(2)])
            assert all(isinstance(one.last, Done) for one in found)
    finally:
        gc.enable()
        group.close()
    assert len(states) == 3


def test_an_error_in_a_step_ends_an_answer_and_the_next_is_answered(answers, monkeypatch):
    group = answers(2)
    alone = heard(group, [question(0)])[0].text
    right = Together.step

    def failing(self):
        if self.is_full:
            raise MemoryError("no memory")
        right(self)

    monkeypatch.setattr(Together, "step", failing)
    long: Any = {"max_tokens": 200, "temperature": 0.8, "seed": 1, "stop_loops": False}
    found = heard(group, [question(0, options=long), question(1, options=long)])
    assert "MemoryError" in found[0].last.problem.message  # the other may have begun later
    assert heard(group, [question(0)])[0].text == alone


def test_others_go_on_while_a_long_prompt_is_read(answers):
    """Where none may wait at all, they go on after each record of the prompt."""
    long: Any = {"max_tokens": 200, "temperature": 0.8, "seed": 1, "stop_loops": False}
    short: Any = {"max_tokens": 3, "temperature": 0}
    expected = heard(answers(1), [question(0, options=long), question(0, prompt="a dog " * 90, options=short)])
    group, order, found = answers(2, max_gap=0.0), SimpleQueue[Any](), {0: "", 1: ""}
    group.submit(question(0, options=long), lambda event: order.put((0, event)))
    while not isinstance(order.get(timeout=60)[1], Said):
        pass
    group.submit(question(0, prompt="a dog " * 90, options=short), lambda event: order.put((1, event)))
    events: list[tuple[int, Any]] = []
    while sum(isinstance(event, Done) for _, event in events) < 2:
        events.append(order.get(timeout=60))
        assert not isinstance(events[-1][1], Failed)
    reading = [i for i, (number, event) in enumerate(events) if number == 1 and isinstance(event, Working)]
    between = [event for number, event in events[reading[0] : reading[-1]] if number == 0 and isinstance(event, Said)]
    assert len(between) > 3
    for number, event in events:
        found[number] += event.piece if isinstance(event, Said) else ""
    assert expected[0].text.endswith(found[0])
    assert found[1] == expected[1].text
