"""Several answers of one model at a time: those to a list of questions, and those that coroutines wait for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from qcli.runtime.exclusive import Answer, Exclusive
from qcli.runtime.places import places
from qcli.runtime.side_by_side import Listener, SideBySide
from qcli.runtime.stats import Stats
from qcli.runtime.together import Together
from qcli.text.thoughts import Thought
from qcli.tools.call import ToolCall

if TYPE_CHECKING:
    from qcli.runtime.prefix_cache import PrefixCache

MOST: Final = 8  # at a time, where nothing else is said
Begin = Callable[[Together | None], Answer]  # begins an answer beside others, or alone


@dataclass
class Result:
    """What came of one question of several."""

    text: str = ""
    thoughts: str = ""  # before the text
    calls: list[ToolCall] = field(default_factory=list)  # of tools
    ids: list[int] = field(default_factory=list)  # of the answer, thoughts included
    logprobs: list[dict[str, Any]] = field(default_factory=list)  # if they were asked for, as `Answer` has them
    stats: Stats = field(default_factory=Stats)
    problem: Exception | None = None  # why there is no answer, or no more of it; most often a QcliError

    wants_more = True

    def progress(self, stage: str, fraction: float) -> None:
        """How far its prompt is: whoever loaded the model is told."""

    def heard(self, answer: Answer, piece: str) -> None:
        """A piece of the answer."""
        if isinstance(piece, ToolCall):
            self.calls.append(piece)
        elif isinstance(piece, Thought):
            self.thoughts += piece
        else:
            self.text += piece

    def over(self, answer: Answer | None, problem: Exception | None) -> None:
        """Nothing more comes."""
        self.problem = problem
        if answer:
            self.ids, self.logprobs, self.stats = list(answer.ids), answer.logprobs, answer.stats


class Several:
    """Gives answers side by side, where a model can and memory allows it; else one after the other.

    While it does, whoever asks for a single answer waits. A thread that serves coroutines is there as long as there is
    something to do for it.
    """

    def __init__(self, exclusive: Exclusive, cache: PrefixCache) -> None:
        self._exclusive, self._cache = exclusive, cache
        self._together: Together | None = None  # the last, with its memory
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Begin, Listener]] = deque()
        self._serves = False  # whether a thread does so

    def batch(self, asked: Iterable[Begin], parallel: int) -> list[Result]:
        """The answers to questions, in their order, `parallel` at a time at most."""
        results: list[Result] = []

        def take() -> tuple[Begin, Listener] | None:
            if (begin := next(questions, None)) is None:
                return None
            results.append(Result())
            return begin, results[-1]

        questions = iter(asked)
        self._give(take, parallel)
        return results

    def submit(self, begin: Begin, listener: Listener) -> None:
        """Have an answer given by a thread; its listener is told of it from there."""
        with self._lock:
            self._waiting.append((begin, listener))
            if not self._serves:
                self._serves = True
                threading.Thread(target=self._serve, name="answers", daemon=True).start()

    def _serve(self) -> None:
        is_over = False
        while not is_over:
            left, problem = list[tuple[Begin, Listener]](), None
            try:
                self._give(self._in_turn(), MOST)
            except Exception as raised:  # the model was closed, say
                problem = raised
            with self._lock:
                if problem:
                    left, self._waiting = [*self._waiting], deque()
                is_over = not self._waiting
                self._serves = not is_over
            for _, listener in left:
                listener.over(None, problem)

    def _in_turn(self) -> Callable[[], tuple[Begin, Listener] | None]:
        """Gives the next that waits: at least one, and others until somebody else waits for the model."""
        began = False

        def take() -> tuple[Begin, Listener] | None:
            nonlocal began
            with self._lock:
                if not self._waiting or (began and self._exclusive.others_wait):
                    return None
                began = True
                return self._waiting.popleft()

        return take

    def _give(self, take: Callable[[], tuple[Begin, Listener] | None], parallel: int) -> None:
        """Give answers until there is none to take."""
        with self._exclusive.use_anew():
            together = self._of(parallel)
            if together:
                self._give_together(take, together, parallel)
                return
        while next_one := take():
            _give_alone(*next_one)

    def _give_together(
        self, take: Callable[[], tuple[Begin, Listener] | None], together: Together, parallel: int
    ) -> None:
        side = SideBySide(together)
        try:
            while True:
                self._exclusive.lifetime.check_open()
                if not side.is_full and len(side) < parallel and (next_one := take()):
                    begin, listener = next_one
                    if listener.wants_more:
                        try:
                            side.add(begin(together), listener)
                        except Exception as problem:
                            listener.over(None, problem)
                elif not len(side):
                    return
                side.go_on()
        except Exception as problem:
            side.end(problem)
            raise
        finally:
            side.end()

    def _of(self, parallel: int) -> Together | None:
        """What gives so many answers together; None where one at a time is all that can be."""
        if self._together and self._together.most >= parallel:
            return self._together
        self._together = None
        self._cache.share_with(None)  # so that its memory goes first
        most = places(self._cache.engine, parallel)
        if most > 1:
            self._together = Together(self._cache, most)
        return self._together


def _give_alone(begin: Begin, listener: Listener) -> None:
    answer: Answer | None = None
    try:
        if listener.wants_more:
            answer = begin(None)
            for piece in answer:
                listener.heard(answer, piece)
                if not listener.wants_more:
                    answer.close()
    except Exception as problem:
        listener.over(answer, problem)
    else:
        listener.over(answer, None)
