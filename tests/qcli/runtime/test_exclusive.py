"""One answer at a time: who waits for whom, and when a model closes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from qcli.errors import QcliError
from qcli.runtime.exclusive import Answer, Exclusive


class Closed:
    """Counts how often the model was closed."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def closed() -> Closed:
    return Closed()


@pytest.fixture
def exclusive(closed: Closed) -> Exclusive:
    return Exclusive(closed)


def begun(exclusive: Exclusive, pieces: Iterator[str]) -> Answer:
    with exclusive.use_anew():
        return exclusive.begin((piece for piece in pieces), [])


def in_a_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def failure_of(work) -> str:
    """What a QcliError says when another thread does this; "" if none."""
    said = []

    def attempt() -> None:
        try:
            work()
            said.append("")
        except QcliError as problem:
            said.append(str(problem))

    in_a_thread(attempt).join(10)
    return said[0]


class Slow:
    """Pieces of an answer, of which the second takes until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[str]:
        yield "a"
        self.reached.set()
        self.go_on.wait(10)
        yield "b"
        yield "c"


def test_an_answer_is_read_to_its_end(exclusive):
    answer = begun(exclusive, iter("abc"))
    assert list(answer) == ["a", "b", "c"]
    assert answer.over
    assert list(answer) == []


def test_a_new_answer_ends_one_that_was_left_unread_and_its_reader_is_told(exclusive):
    first = begun(exclusive, iter("abc"))
    next(first)
    assert list(begun(exclusive, iter("de"))) == ["d", "e"]
    for _ in range(2):
        with pytest.raises(QcliError, match="ended early: another one has begun since"):
            next(first)


def test_one_that_was_closed_just_ends(exclusive):
    answer = begun(exclusive, iter("abc"))
    next(answer)
    answer.close()
    assert list(answer) == []


def test_what_an_answer_raises_ends_it(exclusive):
    answer = begun(exclusive, (str(1 / n) for n in (1, 0, 1)))
    next(answer)
    with pytest.raises(ZeroDivisionError):
        next(answer)
    assert list(answer) == []
    answer = begun(exclusive, iter("abc"))
    next(answer)
    with pytest.raises(KeyboardInterrupt):
        answer.throw(KeyboardInterrupt)
    assert list(answer) == []


@pytest.mark.parametrize("end", [list, Answer.close], ids=["read", "closed"])
def test_another_thread_waits_until_it_is_over(exclusive, end):
    answer, said = begun(exclusive, iter("abc")), list[str]()
    next(answer)
    other = in_a_thread(lambda: said.extend(begun(exclusive, iter("de"))))
    other.join(0.3)
    assert (other.is_alive(), said, exclusive.others_wait) == (True, [], True)
    end(answer)
    other.join(10)
    assert (said, exclusive.others_wait) == (["d", "e"], False)


def test_who_asked_first_is_answered_first(exclusive):
    answer, order, threads = begun(exclusive, iter("abc")), [], []
    for number in range(5):
        waiting = len(exclusive._line)
        threads.append(in_a_thread(lambda number=number: order.append((number, *begun(exclusive, iter("d"))))))
        while len(exclusive._line) == waiting:
            threads[-1].join(0.001)
    assert list(answer) == ["a", "b", "c"]
    for thread in threads:
        thread.join(10)
    assert order == [(number, "d") for number in range(5)]


def test_who_waits_is_told_when_the_model_is_closed(exclusive, closed):
    answer, said = begun(exclusive, iter("abc")), []
    other = in_a_thread(lambda: said.append(failure_of(lambda: begun(exclusive, iter("de")))))
    while not exclusive.others_wait:
        other.join(0.001)
    exclusive.close()
    other.join(10)
    assert "closed" in said[0]
    assert closed.times >= 1
    with pytest.raises(QcliError, match="the model was closed"):
        next(answer)


def test_an_answer_whose_reader_is_gone_stands_in_nobodys_way(exclusive):
    left = []
    assert failure_of(lambda: left.append(begun(exclusive, iter("abc")))) == ""
    assert list(begun(exclusive, iter("de"))) == ["d", "e"]
    dropped = begun(exclusive, iter("abc"))
    next(dropped)
    del dropped
    assert failure_of(lambda: begun(exclusive, iter("de"))) == ""


def test_two_threads_read_one_answer_one_after_the_other(exclusive):
    slow, found = Slow(), list[str]()
    answer = begun(exclusive, slow)
    readers = [in_a_thread(lambda: found.extend(answer)) for _ in range(2)]
    slow.reached.wait(10)
    slow.go_on.set()
    for reader in readers:
        reader.join(10)
    assert answer.over
    assert sorted(found) == ["a", "b", "c"]


def test_an_answer_closed_by_another_thread_ends_after_its_step(exclusive):
    read: list[str] = []
    slow = Slow()
    answer = begun(exclusive, slow)
    reader = in_a_thread(lambda: read.extend(answer))
    slow.reached.wait(10)
    answer.close()
    slow.go_on.set()
    reader.join(10)
    assert read == ["a"]


def test_after_close_everything_is_refused(exclusive, closed):
    answer = begun(exclusive, iter("abc"))
    next(answer)
    exclusive.close()
    exclusive.close()
    assert closed.times >= 1
    with pytest.raises(QcliError, match="ended early: the model was closed"):
        next(answer)
    with pytest.raises(QcliError, match="this model was closed"):
        begun(exclusive, iter("abc"))


def test_close_waits_for_the_step_of_another_thread(exclusive, closed):
    slow, said = Slow(), []
    answer = begun(exclusive, slow)
    reader = in_a_thread(lambda: said.append(failure_of(lambda: list(answer))))
    slow.reached.wait(10)
    closer = in_a_thread(exclusive.close)
    closer.join(0.1)
    assert closer.is_alive()
    assert closed.times == 0
    slow.go_on.set()
    closer.join(10)
    reader.join(10)
    assert closed.times >= 1
    assert "closed" in said[0]


def test_close_within_a_step_happens_after_it(exclusive, closed):
    def pieces():
        exclusive.close()
        assert closed.times == 0
        yield "a"
        yield "b"

    answer = begun(exclusive, pieces())
    assert next(answer) == "a"
    assert closed.times >= 1
    with pytest.raises(QcliError, match="the model was closed"):
        next(answer)


def test_an_answer_within_an_answer_is_refused(exclusive):
    def pieces():
        yield from begun(exclusive, iter("abc"))

    with pytest.raises(QcliError, match="in the midst of something that this thread has asked"):
        next(begun(exclusive, pieces()))
    assert list(begun(exclusive, iter("abc"))) == ["a", "b", "c"]


def test_progress_is_where_a_long_prefill_ends(exclusive):
    heard = []
    report = exclusive.heard(lambda *told: heard.append(told))
    report("prefill", 0.5)
    exclusive.close()
    for reporter in (report, exclusive.heard(None)):
        with pytest.raises(QcliError, match="was closed"):
            reporter("prefill", 0.6)
    assert heard == [("prefill", 0.5)]
