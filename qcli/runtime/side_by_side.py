"""Answers side by side: each goes on by a token at a time, and none waits long while the prompt of another is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from qcli.runtime.gap_setting import MAX_GAP
from qcli.runtime.program import OFTEN

if TYPE_CHECKING:
    from qcli.runtime.exclusive import Answer
    from qcli.runtime.together import Together

PARTS: Final = 8  # of a gap: progress of a prompt is told after about one of them
_LONGER: Final = 2.0  # what the next part, and what follows the last, may take of the longest so far


class CancelledError(KeyboardInterrupt):
    """Ends the reading of a prompt, as Ctrl-C does: the state stays whole."""


class Listener(Protocol):
    """Who asked, and hears what comes."""

    def progress(self, stage: str, fraction: float) -> None:
        """How far the prompt is. May raise CancelledError."""

    @property
    def wants_more(self) -> bool:
        """Whether the answer is to go on; asked after each piece, and before each step."""

    def heard(self, answer: Answer, piece: str) -> None:
        """A piece of the answer."""

    def over(self, answer: Answer | None, problem: Exception | None) -> None:
        """Nothing more comes: it has ended, nobody wants more, or something went wrong; None: before it could begin."""


@dataclass(eq=False)
class _Running:
    answer: Answer
    listener: Listener


def _nobody(stage: str, fraction: float) -> None:
    """Is told of progress, and does nothing."""


class Gap:
    """How long it is since answers have gone on, while a prompt is read: whether they have to, so that `most` is not passed."""

    def __init__(self, most: float = MAX_GAP, clock: Callable[[], float] = perf_counter) -> None:
        """most: seconds."""
        self.most, self._clock = most, clock
        self._stepped = self._told = clock()
        self._part = self._step = 0.0  # the longest of late: what is computed between two words on progress; a step

    def is_full(self) -> bool:
        """After a part of a prompt: whether another such part would be too much."""
        now = self._clock()
        self._part = max(now - max(self._told, self._stepped), 0.9 * self._part)
        self._told = now
        return now - self._stepped + _LONGER * self._part + self._step > self.most

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within the block, answers go on."""
        began = self._clock()
        yield
        self._stepped = self._clock()
        self._step = max(self._stepped - began, 0.9 * self._step)


class SideBySide:
    """Answers that have begun, each with who listens to it; for the thread that uses the model."""

    def __init__(self, together: Together, gap: Gap | None = None) -> None:
        self._together, self._gap = together, gap or Gap()
        self._running: list[_Running] = []
        self._reading: _Running | None = None  # whose prompt is being read
        together.have_told(self.progress, self._gap.most / PARTS)

    def __len__(self) -> int:
        return len(self._running)

    @property
    def listeners(self) -> list[Listener]:
        """Who listens to answers that are not over."""
        return [running.listener for running in [*self._running]]

    @property
    def is_full(self) -> bool:
        """Whether no other answer can begin."""
        return self._together.is_full

    def add(self, answer: Answer, listener: Listener) -> None:
        """Have an answer, begun together with the others, go on with them."""
        self._running.append(_Running(answer, listener))

    def go_on(self) -> None:
        """Have each answer go on by a token; of one that is new, the prompt is read first."""
        for running in [*self._running]:
            if running in self._running:
                self._go_on(running)
        self._step(self._running)

    def progress(self, stage: str, fraction: float) -> None:
        """In the midst of a prompt: tell who waits for it, and have the others go on if they have waited long enough."""
        if not (reading := self._reading):
            return
        reading.listener.progress(stage, fraction)
        others = [other for other in self._running if other is not reading and self._together.has_begun(other.answer)]
        if not others or not self._together.may_step or not self._gap.is_full():
            return
        self._reading = None
        try:
            self._step(others)
            for other in others:
                if other in self._running:
                    self._go_on(other)
        finally:
            self._reading = reading

    def end(self, problem: Exception | None = None) -> None:
        """End all answers; nothing more is told."""
        self._together.have_told(_nobody, OFTEN)
        for running in [*self._running]:
            self._end(running, problem)

    def _go_on(self, running: _Running) -> None:
        """Tell the pieces of an answer until it waits for a step, or its end."""
        answer, listener, problem = running.answer, running.listener, None
        self._reading = None if self._together.has_begun(answer) else running
        try:
            for piece in self._together.pieces(answer):
                listener.heard(answer, piece)
                if not listener.wants_more:
                    break
            is_over = not listener.wants_more or self._together.is_over(answer)
        except CancelledError:
            is_over = True
        except Exception as raised:
            is_over, problem = True, raised
        finally:
            self._reading = None
        if is_over:
            self._end(running, problem)

    def _end(self, running: _Running, problem: Exception | None, whole: bool = True) -> None:
        self._running.remove(running)
        self._together.end(running.answer, whole)
        running.listener.over(running.answer, problem)

    def _step(self, those: Iterable[_Running]) -> None:
        """Have those take their next token that wait for it."""
        try:
            with self._gap.step():
                self._together.step()
        except Exception as problem:  # nobody knows what the states are
            for running in [*those]:
                self._end(running, problem, whole=False)
