"""The queue of questions, with engines of a few lines."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from qcli.errors import ModelFileError, QcliError, TemplateError, ThinkError, UnsupportedModelError, UsageError
from qcli.protocol.question import Question
from qcli.runtime.stats import Stats
from qcli.serving.answers import Begun, ClosedError, Done, Failed, QueueFullError, Said, Working
from qcli.serving.one_at_a_time import OneAtATime
from qcli.tools.call import ToolCall

HI = [{"role": "user", "content": "Hi"}]


class Llm:
    """Says what it is told to, a piece for each item; waits for `go` before each."""

    def __init__(self, name, progress, pieces):
        self.name, self._progress, self._pieces = name, progress, pieces
        self.stats = Stats()
        self.asked, self.closed = [], False
        self.go = threading.Semaphore(0)
        self.reading: list[float] = []
        self.engine = SimpleNamespace(ctx=100)

    def chat(self, messages, **options):
        if isinstance(self._pieces, Exception) and not (
            isinstance(self._pieces, ThinkError) and options["think"] is None
        ):
            raise self._pieces
        self.asked.append((messages, options))
        self.stats = Stats(prompt_tokens=5, prefilled_tokens=2)
        return Answer(self._said())

    def generate(self, prompt, **options):
        return self.chat(prompt, **options)

    def tokenize(self, text, special):
        return [*text.encode()]

    def _said(self):
        for fraction in self.reading:
            self.go.acquire()
            self._progress("reading 5 tokens", fraction)
        for piece in ["a"] if isinstance(self._pieces, Exception) else self._pieces:
            self.go.acquire()
            self.stats.new_tokens += 1
            yield piece
        self.stats.finish_reason = "stop"

    def close(self):
        self.closed = True


class Answer:
    def __init__(self, pieces):
        self._pieces, self.logprobs, self.closed = pieces, [], False

    def __iter__(self):
        return self

    def __next__(self):
        piece = next(self._pieces)
        self.logprobs.append({"token": piece})
        return piece

    def close(self):
        self._pieces.close()


@pytest.fixture
def made():
    """Makes a queue of models that say these pieces; `llms` has those that were loaded."""
    queues = []

    def make(pieces=("a", "b"), **options):
        llms = []

        def load(name, progress):
            if name == "broken":
                raise ModelFileError("broken.gguf: is cut off")
            llms.append(Llm(name or "first", progress, pieces))
            return llms[-1]

        answers = OneAtATime(load, **options)
        answers.start()
        queues.append(answers)
        return SimpleNamespace(answers=answers, llms=llms, llm=llms[0])

    yield make
    for answers in queues:
        answers._llm and answers._llm.go.release(100)
        answers.close()
        assert not answers._thread.is_alive()


def asked(answers, question=None):
    """Submits a question; what is told comes out of the queue."""
    told: SimpleQueue[Any] = SimpleQueue()
    return answers.submit(question or Question(HI, {}), told.put), told


def heard(told, kind=object):
    """What is told up to the first of a kind."""
    found: list[Any] = []
    while not found or not isinstance(found[-1], kind):
        found.append(told.get(timeout=10))
    return found


def test_an_answer_is_told_as_it_comes(made):
    queue = made()
    _, told = asked(queue.answers, Question(HI, {"seed": 3}, begun="x"))
    assert heard(told) == [Working("beginning", 0.0)]
    queue.llm.go.release()
    assert heard(told, Said) == [Begun(5, 3), Said("a", [{"token": "a"}])]
    queue.llm.go.release()
    *_, said, done = heard(told, Done)
    assert (said.piece, done.stats.new_tokens, done.stats.finish_reason) == ("b", 2, "stop")
    assert queue.llm.asked == [(HI, {"begun": [120], "seed": 3})]


def test_first_come_first_served_up_to_a_bound(made):
    queue = made(most_waiting=2)
    order = []
    for number in range(3):
        question = Question([{"role": "user", "content": str(number)}], {})
        queue.answers.submit(question, lambda told, number=number: order.append(number))
        while not queue.answers.running:
            time.sleep(0.001)
    assert (queue.answers.running, queue.answers.waiting) == (1, 2)
    with pytest.raises(QueueFullError, match="2 questions are waiting already"):
        asked(queue.answers)
    queue.llm.go.release(6)
    while queue.answers.running or queue.answers.waiting:
        time.sleep(0.001)
    assert order == sorted(order)
    assert [messages[0]["content"] for messages, _ in queue.llm.asked] == ["0", "1", "2"]


def test_a_place_is_freed_within_a_step(made):
    queue = made(pieces=["a"] * 1000)
    first, told = asked(queue.answers)
    second, other = asked(queue.answers)
    queue.llm.go.release()
    heard(told, Said)
    second.cancel()  # it waits: at once
    assert heard(other, Done)[-1].stats.finish_reason == "cancelled"
    assert queue.answers.waiting == 0
    first.cancel()
    queue.llm.go.release()
    done = heard(told, Done)[-1]
    assert (done.stats.finish_reason, done.stats.new_tokens) == ("cancelled", 2)
    assert len(queue.llm.asked) == 1


def test_a_prompt_is_left_in_its_midst(made):
    queue = made()
    queue.llm.reading = [0.1, 0.5, 0.9]
    ticket, told = asked(queue.answers)
    queue.llm.go.release()
    assert heard(told, Working)[-1] == Working("beginning", 0.0)
    assert heard(told, Working)[-1] == Working("reading 5 tokens", 0.1)
    ticket.cancel()
    queue.llm.go.release()
    assert heard(told, Done)[-1].stats.finish_reason == "cancelled"
    queue.llm.reading = []
    queue.llm.go.release(9)
    assert heard(asked(queue.answers)[1], Done)[-1].stats.finish_reason == "stop"


def test_models_are_swapped_by_name(made):
    queue = made(pieces=[])
    for name in (None, "first", "other", "other", None, "first"):
        heard(asked(queue.answers, Question(HI, {}, name))[1], Done)
    assert [llm.name for llm in queue.llms] == ["first", "other", "first"]
    assert [llm.closed for llm in queue.llms] == [True, True, False]
    failed = heard(asked(queue.answers, Question(HI, {}, "broken"))[1], Failed)[-1]
    assert "is cut off" in failed.problem.message
    assert heard(asked(queue.answers, Question(HI, {}, "other"))[1], Done)
    assert queue.answers.model == "other"


@pytest.mark.parametrize(
    ("problem", "kind", "why"),
    [
        (UsageError("no", "yes"), UsageError, "no"),
        (TemplateError("the chat template is broken: a"), UsageError, "the chat template is broken"),
        (UnsupportedModelError("/home/me/a.gguf: no support"), UnsupportedModelError, "no support"),
        (ThinkError("think cannot be on"), ThinkError, "think cannot be on"),
        (ZeroDivisionError("a"), QcliError, "something went wrong inside qcli: ZeroDivisionError: a"),
    ],
)
def test_what_goes_wrong_is_told_and_the_next_is_answered(made, problem, kind, why):
    queue = made(pieces=problem)
    for _ in range(2):
        failed = heard(asked(queue.answers, Question(HI, {"think": "on"}))[1], Failed)[-1]
        assert isinstance(failed.problem, kind)
        assert why in failed.problem.message


def test_a_wish_to_think_may_stay_unheard(made):
    queue = made(pieces=ThinkError("this model does not think"))
    queue.llm.go.release(9)
    heard(asked(queue.answers, Question(HI, {"think": "high"}, wish=True))[1], Done)
    assert queue.llm.asked[0][1]["think"] is None


def test_an_answer_of_one_call_ends_with_it(made):
    queue = made(pieces=[ToolCall("now", {}), ToolCall("now", {})])
    queue.llm.go.release(9)
    *_, said, done = heard(asked(queue.answers, Question(HI, {}, one_call=True))[1], Done)
    assert isinstance(said.piece, ToolCall)
    assert (done.stats.new_tokens, done.stats.finish_reason) == (1, "tool_calls")


def test_closing_ends_what_runs_and_what_waits(made):
    queue = made()
    (_, first), (_, second) = asked(queue.answers), asked(queue.answers)
    heard(first)
    queue.llm.go.release(9)
    queue.answers.close()
    queue.answers.close()
    for told in (first, second):
        heard(told, Done)
    assert queue.llm.closed
    with pytest.raises(ClosedError):
        asked(queue.answers)
