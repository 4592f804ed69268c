"""Answers several questions at a time, by one thread that has the model: their tokens are computed together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcli.errors import QcliError
from qcli.runtime.gap_setting import MAX_GAP
from qcli.runtime.places import places
from qcli.runtime.side_by_side import CancelledError, Gap, SideBySide
from qcli.runtime.stats import Stats
from qcli.serving.answers import MOST_WAITING, Begun, Done, Failed, Said
from qcli.serving.one_at_a_time import Load, OneAtATime, Submitted, begun_by, went_wrong
from qcli.tools.call import ToolCall

if TYPE_CHECKING:
    from qcli.llm import LLM
    from qcli.runtime.exclusive import Answer


class _Hearing:
    """Tells whoever submitted a question what comes of it."""

    def __init__(self, submitted: Submitted) -> None:
        self.submitted = submitted
        self._begun, self._sent, self._called = False, 0, False  # sent: log-probabilities

    @property
    def wants_more(self) -> bool:
        """Whether it was not cancelled, and may have another call."""
        return not (self.submitted.cancelled or self._called)

    def progress(self, stage: str, fraction: float) -> None:
        """How far its prompt is. Raises CancelledError."""
        self.submitted.progress(stage, fraction)

    def heard(self, answer: Answer, piece: str) -> None:
        """A piece of the answer."""
        if not self._begun:
            self._begun = True
            self.submitted.tell(Begun(answer.stats.prompt_tokens, answer.stats.cached_tokens))
        self._tell(answer, piece)
        if self.submitted.question.one_call and isinstance(piece, ToolCall):
            self._called, answer.stats.finish_reason = True, "tool_calls"

    def over(self, answer: Answer | None, problem: Exception | None) -> None:
        """Nothing more comes of it."""
        if problem:
            self.submitted.tell(Failed(problem if isinstance(problem, QcliError) else went_wrong(problem)))
            return
        if answer and self.wants_more and len(answer.logprobs) > self._sent:
            self._tell(answer, "")
        self.submitted.tell(Done(answer.stats if answer else Stats()))

    def _tell(self, answer: Answer, piece: str) -> None:
        new, self._sent = answer.logprobs[self._sent :], max(self._sent, len(answer.logprobs))
        self.submitted.tell(Said(piece, new))


class SeveralAtATime(OneAtATime):
    """As OneAtATime; questions for the model that is there join those that are being answered."""

    def __init__(
        self, load: Load, most_waiting: int = MOST_WAITING, parallel: int = 4, max_gap: float = MAX_GAP
    ) -> None:
        """parallel: questions that are answered at a time, fewer where there is no memory for so many; max_gap: seconds that
        an answer waits at most for its next token while the prompt of another is read."""
        super().__init__(load, most_waiting)
        self._parallel, self._max_gap = parallel, max_gap
        self._side: SideBySide | None = None  # the answers of the model that is there; None: it gives one at a time
        self._side_of: LLM | None = None

    def _leave(self) -> None:
        if self._side is not None:
            self._side.end()
        self._side = self._side_of = None  # or their memory would be there beside that of the next model
        super()._leave()

    def _in_turn(self) -> list[Submitted]:
        """Questions that are being answered."""
        heard = [one.submitted for one in self._side.listeners if isinstance(one, _Hearing)] if self._side else []
        return [*heard, *super()._in_turn()]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed or self._side)
                if self._closed and not self._side:
                    return
                next_one = self._queue.popleft() if self._may_join() else None
                self._now = next_one
            if next_one:
                self._begin(next_one)
                self._now = None
            del next_one
            if self._side:
                self._side.go_on()

    def _may_join(self) -> bool:
        """Whether the next question can begin: it needs a place, and no other model while some are being answered."""
        if not self._queue or self._closed:
            return False
        if not self._side:
            return True
        return not self._side.is_full and self._queue[0].question.model in (None, self._model)

    def _begin(self, submitted: Submitted) -> None:
        self._listener = submitted.progress
        try:
            llm = self._model_for(submitted.question)
            side = self._side_by_side(llm)
            if side is None:
                submitted.tell(Done(self._answer(submitted)))
                return
            submitted.progress("beginning", 0.0)
            side.add(begun_by(llm, submitted.question), _Hearing(submitted))
        except CancelledError:
            submitted.tell(Done(Stats()))
        except QcliError as problem:
            submitted.tell(Failed(problem))
        except Exception as problem:
            submitted.tell(Failed(went_wrong(problem)))
        finally:
            self._listener = None

    def _side_by_side(self, llm: LLM) -> SideBySide | None:
        """What gives the answers of a model together; None if that cannot be."""
        if self._side_of is not llm:
            self._side_of, self._side = llm, None
            most = places(llm.engine, self._parallel)
            if most > 1:
                self._side = SideBySide(llm.together(most), Gap(self._max_gap))
        return self._side
