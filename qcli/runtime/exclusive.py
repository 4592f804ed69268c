"""One answer at a time, and one thread in it: whoever else wants the model meanwhile waits for it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

from qcli.errors import QcliError
from qcli.progress import Progress
from qcli.runtime.lifetime import Lifetime
from qcli.runtime.stats import Stats

_PATIENCE: Final = 0.2  # seconds, after which whoever waits looks whether the thread is still there that it waits for


class Exclusive:
    """Exclusive use of a model: by one thread at a time, for one answer at a time, until it is closed.

    A new answer ends one that the same thread has left unread. What another thread has begun is waited for, until it is
    read to its end, closed or dropped, or its thread has ended; who asked first has the model first.
    """

    def __init__(self, end: Callable[[], None], after: Callable[[], None] = lambda: None) -> None:
        """end: what closes the model, once nobody uses it any more; after: called after each use, by its user."""
        self.lifetime = Lifetime()
        self._end, self._after = end, after
        self._free = threading.Condition()  # its lock is held for moments; a signal's handler may come in between
        self._user: object = None  # whoever uses the model right now
        self._thread = 0  # that of the user
        self._answer: weakref.ref[Answer] | None = None  # an answer that nobody has any more is over
        self._line: list[object] = []  # who waits to begin something, in the order of coming

    @contextmanager
    def use(self, anew: bool = False) -> Iterator[None]:
        """Have the model for oneself within the block, after other threads have done their step.

        anew: after their answers, too, first come, first served. Raises QcliError if it is closed, or the process forked,
        or this thread is in the midst of using it.
        """
        me = object()
        try:  # first of all, as Ctrl-C may come anywhere
            self.lifetime.check()
            with self._free:
                if self._user is not None and self._thread == threading.get_ident():
                    raise _busy()
                self._wait(me, anew)
                self._user, self._thread = me, threading.get_ident()
            yield
        finally:
            if self._user is me:
                self._after()
                with self._free:
                    self._user = None
                    self._free.notify_all()
                if self.lifetime.closed:
                    self.close()

    @contextmanager
    def use_anew(self) -> Iterator[None]:
        """As `use` anew, after an answer that this thread has left unread has ended."""
        with self.use(anew=True):
            self.end_unread()
            yield

    def end_unread(self) -> None:
        """End an answer that this thread has left unread; called within `use` anew."""
        if answer := self._unread():
            answer.end("another one has begun since", "read an answer to its end before you ask for the next")

    @property
    def others_wait(self) -> bool:
        """Whether anybody waits to begin something."""
        return bool(self._line)

    def _wait(self, me: object, anew: bool) -> None:
        if anew:
            self._line.append(me)
        try:
            while self._user is not None or (anew and (self._line[0] is not me or self._is_read_elsewhere())):
                self._free.wait(_PATIENCE)
                self.lifetime.check()
        finally:
            if anew:
                self._line.remove(me)

    def _is_read_elsewhere(self) -> bool:
        """Whether another thread, one that is still there, has an answer that is not over."""
        answer = self._unread()
        if answer is None or answer.thread == threading.get_ident():
            return False
        return answer.thread in {thread.ident for thread in threading.enumerate()}

    def begin(
        self,
        pieces: Generator[str, None, None],
        ids: list[int],
        logprobs: list[dict[str, Any]] | None = None,
        stats: Stats | None = None,
    ) -> Answer:
        """Make an answer of what yields its pieces and appends to its ids; called within `use` anew, after `end_unread`."""
        answer = Answer(self, pieces, ids, [] if logprobs is None else logprobs, stats or Stats())
        self._answer = weakref.ref(answer)
        return answer

    def heard(self, progress: Progress | None) -> Progress:
        """A progress callback that ends a long prefill once another thread has closed the model."""

        def report(stage: str, fraction: float) -> None:
            self.lifetime.check_open()
            if progress:
                progress(stage, fraction)

        return report

    def close(self) -> None:
        """Close the model: at once, when another thread has done its step, or when the caller's own call returns."""
        self.lifetime.closed = True
        if not self.lifetime.here:  # threads, and locks that they held, have stayed behind
            return
        with self._free:
            if self._user is not None and self._thread == threading.get_ident():
                return  # in a callback or a signal's handler: `use` closes
            self._free.wait_for(lambda: self._user is None)
        if answer := self._unread():
            answer.end("the model was closed", "read an answer to its end before you close the model")
        self._end()

    def _unread(self) -> Answer | None:
        """The answer that is not over yet, if there is one."""
        answer = self._answer() if self._answer else None
        return None if answer is None or answer.over else answer


class Answer(Generator[str, None, None]):
    """An answer as it comes: an iterator of pieces of text. close() ends it early, as does dropping it.

    `ids`: the token ids generated so far, thoughts included, the one that ends a turn not.
    `logprobs`: if they were asked for, of each token of the answer's text: its own and the likeliest, as OpenAI has them.
    `stats`: what it took.
    """

    def __init__(
        self,
        exclusive: Exclusive,
        pieces: Generator[str, None, None],
        ids: list[int],
        logprobs: list[dict[str, Any]],
        stats: Stats,
    ) -> None:
        self._exclusive, self._pieces, self.ids, self.logprobs = exclusive, pieces, ids, logprobs
        self.stats = stats
        self._ended: QcliError | None = None
        self._running = False  # whether a thread is in the midst of a step
        self.over = False  # whether nothing more comes
        self.thread = threading.get_ident()  # that reads it

    def send(self, value: None) -> str:
        """The next piece. Raises QcliError if it is not to be had any more, and whatever the model raises."""
        if self._ended:
            raise self._ended
        if self.over:
            raise StopIteration
        with self._exclusive.use():
            self.thread = threading.get_ident()
            try:
                self._running = True
                piece = next(self._pieces)
            except BaseException:
                self.over = True
                raise
            finally:
                self._running = False
            if self.over:  # it was closed meanwhile
                self._pieces.close()
                raise StopIteration
            return piece

    def throw(self, kind: Any, value: BaseException | object = None, trace: TracebackType | None = None, /) -> str:
        """Raise an exception where the answer is, which ends it."""
        self.over = True
        raised = value if isinstance(value, BaseException) else kind
        if trace and isinstance(raised, BaseException):
            raised = raised.with_traceback(trace)
        return self._pieces.throw(raised)

    def close(self) -> None:
        """End it here; in the midst of a step of another thread, after that step."""
        self.over = True
        if not self._running:
            self._pieces.close()

    def end(self, reason: str, hint: str) -> None:
        """Close it, and tell whoever reads on why it is incomplete."""
        self.close()
        self._ended = QcliError(f"this answer has ended early: {reason}", hint)


def _busy() -> QcliError:
    return QcliError(
        "the model is in the midst of something that this thread has asked of it",
        "ask again when that has returned",
    )
