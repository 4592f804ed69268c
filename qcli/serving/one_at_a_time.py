"""Answers one question at a time: a thread has the model, and works off a queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from qcli.errors import QcliError, TemplateError, ThinkError, UsageError
from qcli.progress import Progress
from qcli.protocol.question import Question
from qcli.runtime.side_by_side import CancelledError
from qcli.runtime.stats import Stats
from qcli.serving.answers import MOST_WAITING, Begun, ClosedError, Done, Failed, QueueFullError, Said, Told, Working
from qcli.tools.call import ToolCall

if TYPE_CHECKING:
    from qcli.llm import LLM
    from qcli.runtime.exclusive import Answer

Load = Callable[[str | None, Progress], "LLM"]  # the model of a question, by its name; None: the usual one


class Submitted:
    """A question in the queue, or in its turn."""

    def __init__(self, question: Question, tell: Callable[[Told], None], drop: Callable[[Submitted], bool]) -> None:
        self.question, self.tell, self._drop = question, tell, drop
        self.cancelled = False

    def cancel(self) -> None:
        """Have its place freed."""
        self.cancelled = True
        if self._drop(self):
            self.tell(Done(Stats()))

    def progress(self, stage: str, fraction: float) -> None:
        """Tell how far its prompt is."""
        if self.cancelled:
            raise CancelledError
        self.tell(Working(stage, fraction))


class OneAtATime:
    """Answers, by the models that `load` loads, of which one is there at a time."""

    def __init__(self, load: Load, most_waiting: int = MOST_WAITING) -> None:
        self._load, self._most = load, most_waiting
        self._queue: deque[Submitted] = deque()
        self._changed = threading.Condition()
        self._now: Submitted | None = None
        self._closed = False
        self._llm: LLM | None = None
        self._model: str | None = None  # as a question names it
        self._listener: Progress | None = None
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)

    def start(self, model: str | None = None, progress: Progress | None = None) -> LLM:
        """Load a model, in the caller's thread, and begin to answer. Raises what `load` raises."""
        self._listener = progress
        self._llm = self._load(model, self._heard)
        self._model = self._llm.name if model is None else model
        self._listener = None
        self._thread.start()
        return self._llm

    @property
    def waiting(self) -> int:
        """Questions whose turn has not come."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Questions that are being answered."""
        return len(self._in_turn())

    @property
    def model(self) -> str | None:
        """The name by which the model that is there was asked for."""
        return self._model

    def submit(self, question: Question, tell: Callable[[Told], None]) -> Submitted:
        """Have a question answered. Raises QueueFullError, ClosedError."""
        submitted = Submitted(question, tell, self._drop)
        with self._changed:
            if self._closed:
                raise ClosedError("the server is ending", "ask again when it is back")
            if len(self._queue) >= self._most:
                raise QueueFullError(f"{len(self._queue)} questions are waiting already", "ask again a little later")
            self._queue.append(submitted)
            self._changed.notify()
        return submitted

    def close(self) -> None:
        """Cancel what waits and what runs, and end the thread and the model."""
        with self._changed:
            self._closed = True
            left = [*self._queue, *self._in_turn()]
            self._changed.notify()
        for submitted in left:
            submitted.cancel()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self._leave()

    def _in_turn(self) -> list[Submitted]:
        """Questions that are being answered."""
        return [self._now] if self._now else []

    def _drop(self, submitted: Submitted) -> bool:
        """Take a question out of the queue; False if its turn has come."""
        with self._changed:
            if submitted not in self._queue:
                return False
            self._queue.remove(submitted)
            return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                now = self._now = self._queue.popleft()
            self._listener = now.progress
            try:
                last: Told = Done(self._answer(now))
            except CancelledError:
                last = Done(Stats())
            except QcliError as problem:
                last = Failed(problem)
            except Exception as problem:  # a bug, or no memory: whoever asks next is answered all the same
                last = Failed(went_wrong(problem))
            self._listener = self._now = None
            now.tell(last)
            del now, last

    def _answer(self, now: Submitted) -> Stats:
        llm = self._model_for(now.question)
        now.progress("beginning", 0.0)
        answer, sent, begun = begun_by(llm, now.question), 0, False
        with closing(answer):
            for piece in answer:
                if not begun:
                    begun = True
                    now.tell(Begun(llm.stats.prompt_tokens, llm.stats.cached_tokens))
                new, sent = answer.logprobs[sent:], max(sent, len(answer.logprobs))
                now.tell(Said(piece, new))
                if now.cancelled:
                    break
                if now.question.one_call and isinstance(piece, ToolCall):
                    llm.stats.finish_reason = "tool_calls"
                    break
            else:
                if rest := answer.logprobs[sent:]:
                    now.tell(Said("", rest))
        return llm.stats

    def _model_for(self, question: Question) -> LLM:
        """The model of a question, in place of the one that was there."""
        name = self._model if question.model is None else question.model
        if self._llm is None or name != self._model:
            self._leave()
            self._model, self._llm = name, self._loaded(name)
        return self._llm

    def _loaded(self, name: str | None) -> LLM:
        try:
            return self._load(name, self._heard)
        except QcliError as problem:  # whatever it is, it is no fault of the question
            raise QcliError(f"{name} cannot be loaded: {problem.message}", problem.hints) from problem

    def _leave(self) -> None:
        llm, self._llm = self._llm, None
        if llm:
            llm.close()

    def _heard(self, stage: str, fraction: float) -> None:
        if listener := self._listener:
            listener(stage, fraction)


def went_wrong(problem: Exception) -> QcliError:
    """A bug, or no memory, as whoever asked is told of it."""
    return QcliError(f"something went wrong inside qcli: {type(problem).__name__}: {problem}")


def begun_by(llm: LLM, question: Question) -> Answer:
    """The answer to a question; what its messages have a chat template stumble over is the question's fault, and
    nothing else that is wrong with the model's file."""
    options: Any = {**question.options}
    if isinstance(question.prompt, str):
        return llm.generate(question.prompt, **options)
    begun = llm.tokenize(question.begun, special=False) if question.begun else ()
    try:
        return llm.chat(question.prompt, begun=begun, **options)
    except ThinkError:
        if not question.wish:
            raise
        return llm.chat(question.prompt, begun=begun, **{**options, "think": None})
    except TemplateError as problem:
        raise UsageError(problem.message, problem.hints) from None
