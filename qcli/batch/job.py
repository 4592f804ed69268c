"""A batch on its way: rows are asked, and their results written as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic, time
from typing import Any, Final, Protocol

from qcli.batch.question import Asked, Defaults
from qcli.batch.source import Row
from qcli.errors import ContextOverflowError, QcliError, UsageError
from qcli.serving.answers import MOST_WAITING, Answers, Begun, Done, Failed, Said, Ticket, Told, Working

_AHEAD: Final = 3  # questions that are submitted beside those that are answered, so that none is waited for
_HELD: Final = 64  # results that wait for an earlier one to be written first
_PATIENCE: Final = 0.5  # seconds; Windows hears no Ctrl-C while it waits without an end


class Kept(Protocol):
    """Where results go."""

    done: dict[str, str]  # by the ids of rows whose results are there already

    def add(self, result: Mapping[str, Any]) -> None:
        """Add one."""


@dataclass
class Summary:
    """What a run has done so far."""

    answered: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0


class Job:
    """Asks rows whose results are not there yet."""

    def __init__(
        self,
        answers: Answers,
        model: str,
        results: Kept,
        defaults: Defaults,
        parallel: int = 1,
        ordered: bool = False,
    ) -> None:
        """model: what results call it; parallel: questions that are answered at a time; ordered: whether results are written
        in the order of the rows, else as they come."""
        self._answers, self._model, self._results, self._defaults = answers, model, results, defaults
        self._ahead = parallel + _AHEAD
        self._told: SimpleQueue[tuple[Asked, int, Told]] = SimpleQueue()
        self._open: dict[int, dict[int, Ticket]] = {}  # by the id of what is asked, and the number of its question
        self._order: deque[Asked] | None = deque() if ordered else None  # whose results are not written yet
        self._held: dict[int, dict[str, Any]] = {}  # results that wait for earlier ones, by the id of what was asked
        self._began = monotonic()
        self.summary = Summary()

    def run(self, rows: Iterable[Row], tell: Callable[[Summary], object]) -> None:
        """Ask the rows, and tell after each how far that is.

        Raises OutputError if a result cannot be written, QcliError for what has nothing to do with a row.
        """
        created = int(time())
        try:
            for row in rows:
                if row.id in self._results.done:
                    continue
                asked = Asked(row, self._defaults, created)
                if self._order is not None:
                    self._order.append(asked)
                if not asked.questions:
                    self._fail(asked, asked.problem or QcliError("the row has no question"))
                    tell(self.summary)
                    continue
                tickets = self._open[id(asked)] = {}
                for number, question in enumerate(asked.questions):
                    while self._in_the_queue >= MOST_WAITING:
                        self._hear(tell)
                    if id(asked) not in self._open:
                        break
                    tickets[number] = self._answers.submit(question, self._listener(asked, number))
                while self._in_the_queue >= self._ahead or (self._open and len(self._held) >= _HELD):
                    self._hear(tell)
            while self._open:
                self._hear(tell)
        finally:
            for tickets in self._open.values():
                for ticket in tickets.values():
                    ticket.cancel()

    @property
    def _in_the_queue(self) -> int:
        return sum(map(len, self._open.values()))

    def _listener(self, asked: Asked, number: int) -> Callable[[Told], None]:
        return lambda told: self._told.put((asked, number, told))

    def _hear(self, tell: Callable[[Summary], object]) -> None:
        """Take what is told of one of the open questions."""
        try:
            asked, number, told = self._told.get(timeout=_PATIENCE)
        except Empty:
            return
        if id(asked) not in self._open:  # another of its questions has failed
            return
        match told:
            case Said(piece, logprobs):
                asked.add(number, piece, logprobs)
            case Done(stats):
                asked.end(number, stats)
                self.summary.prompt_tokens += stats.prompt_tokens
                self.summary.cached_tokens += stats.cached_tokens
                self.summary.new_tokens += stats.new_tokens
                del self._open[id(asked)][number]
                if asked.is_over:
                    self._write(asked, asked.result(self._model))
                    self.summary.answered += 1
                    self._end(asked, tell)
            case Failed(problem):
                if not isinstance(problem, UsageError | ContextOverflowError):
                    raise problem
                self._fail(asked, problem)
                self._end(asked, tell)
            case Working() | Begun():
                pass

    def _write(self, asked: Asked, result: dict[str, Any]) -> None:
        """Write a result, and those that have waited for it; or have it wait itself."""
        if self._order is None:
            self._results.add(result)
            return
        self._held[id(asked)] = result
        while self._order and id(self._order[0]) in self._held:
            self._results.add(self._held.pop(id(self._order.popleft())))

    def _fail(self, asked: Asked, problem: QcliError) -> None:
        self._write(asked, asked.error(problem))
        self.summary.errors += 1

    def _end(self, asked: Asked, tell: Callable[[Summary], object]) -> None:
        for ticket in self._open.pop(id(asked)).values():
            ticket.cancel()
        self.summary.seconds = monotonic() - self._began
        tell(self.summary)
