"""Answers several questions at a time, by one thread that has the model: their tokens are computed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qcli.errors import QcliError
from qcli.host.memory import available_memory
from qcli.runtime.stats import Stats
from qcli.serving.answers import MOST_WAITING, Begun, Done, Failed, Said, Told
from qcli.serving.one_at_a_time import CancelledError, Load, OneAtATime, Submitted, begun_by, went_wrong
from qcli.serving.prompt_size import check_size
from qcli.tools.call import ToolCall

if TYPE_CHECKING:
    from qcli.llm import LLM
    from qcli.runtime.exclusive import Answer
    from qcli.runtime.together import Together

_LEFT: Final = 4  # a part of free memory that states of texts may take: one of so many


@dataclass(eq=False)
class _Running:
    """A question that is being answered."""

    submitted: Submitted
    answer: Answer
    begun: bool = False
    sent: int = 0  # log-probabilities


class SeveralAtATime(OneAtATime):
    """As OneAtATime; questions for the model that is there join those that are being answered."""

    def __init__(self, load: Load, most_waiting: int = MOST_WAITING, parallel: int = 4) -> None:
        """parallel: questions that are answered at a time, fewer where there is no memory for so many."""
        super().__init__(load, most_waiting)
        self._parallel = parallel
        # The model that is there, and what gives its answers together; None where it takes one at a time.
        self._group: tuple[LLM, Together | None] | None = None
        self._running: list[_Running] = []
        self._reading: _Running | None = None  # whose prompt is being read

    def _in_turn(self) -> list[Submitted]:
        """Questions that are being answered."""
        return [*(running.submitted for running in [*self._running]), *super()._in_turn()]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed or self._running)
                if self._closed and not self._running:
                    return
                next_one = self._queue.popleft() if self._may_join() else None
                self._now = next_one
            if next_one:
                self._begin(next_one)
                self._now = None
                continue
            for running in [*self._running]:
                self._go_on(running)
            if self._group and self._group[1]:
                self._step(self._group[1], self._running)

    def _may_join(self) -> bool:
        """Whether the next question can begin: it needs a place, and no other model while some are being answered."""
        if not self._queue or self._closed:
            return False
        if not self._running:
            return True
        name = self._queue[0].question.model
        group = self._group[1] if self._group else None
        return group is not None and not group.is_full and name in (None, self._model)

    def _begin(self, submitted: Submitted) -> None:
        self._listener = submitted.progress
        try:
            llm = self._model_for(submitted.question)
            group = self._group_of(llm)
            if group is None:
                submitted.tell(Done(self._answer(submitted)))
                return
            submitted.progress("beginning", 0.0)
            check_size(llm, submitted.question)
            self._running.append(_Running(submitted, begun_by(llm, submitted.question)))
        except CancelledError:
            submitted.tell(Done(Stats()))
        except QcliError as problem:
            submitted.tell(Failed(problem))
        except Exception as problem:
            submitted.tell(Failed(went_wrong(problem)))
        finally:
            self._listener = None

    def _go_on(self, running: _Running) -> None:
        """Tell the pieces of an answer until it waits for a step, or its end."""
        group, submitted, answer = self._group and self._group[1], running.submitted, running.answer
        assert group
        self._listener = submitted.progress
        self._reading = None if group.has_begun(answer) else running
        last: Told | None = None
        try:
            for piece in group.pieces(answer):
                self._tell(running, piece)
                if submitted.question.one_call and isinstance(piece, ToolCall):
                    answer.stats.finish_reason = "tool_calls"
                    last = Done(answer.stats)
                    break
            if submitted.cancelled:
                last = Done(answer.stats)
            elif last is None and group.is_over(answer):
                if rest := answer.logprobs[running.sent :]:
                    submitted.tell(Said("", rest))
                last = Done(answer.stats)
        except CancelledError:
            last = Done(Stats())
        except QcliError as problem:
            last = Failed(problem)
        except Exception as problem:
            last = Failed(went_wrong(problem))
        self._listener = self._reading = None
        if last:
            self._end(running, group, last)

    def _heard(self, stage: str, fraction: float) -> None:
        """In the midst of a long prompt, the others go on."""
        super()._heard(stage, fraction)
        group = self._group and self._group[1]
        if group and self._reading:
            reading, listener = self._reading, self._listener
            self._reading = None
            try:
                others = [other for other in self._running if other is not reading and group.has_begun(other.answer)]
                for other in others:
                    self._go_on(other)
                self._step(group, [other for other in others if other in self._running])
            finally:
                self._reading, self._listener = reading, listener

    def _tell(self, running: _Running, piece: str) -> None:
        answer = running.answer
        if not running.begun:
            running.begun = True
            running.submitted.tell(Begun(answer.stats.prompt_tokens, answer.stats.cached_tokens))
        new, running.sent = answer.logprobs[running.sent :], max(running.sent, len(answer.logprobs))
        running.submitted.tell(Said(piece, new))

    def _end(self, running: _Running, group: Together, last: Told) -> None:
        self._running.remove(running)
        group.end(running.answer)
        running.submitted.tell(last)

    def _step(self, group: Together, those: list[_Running]) -> None:
        """Have those take their next token that wait for it."""
        try:
            group.step()
        except Exception as problem:  # nobody knows what the states are
            found = problem if isinstance(problem, QcliError) else went_wrong(problem)
            for running in [*those]:
                self._end(running, group, Failed(found))

    def _group_of(self, llm: LLM) -> Together | None:
        """What gives the answers of a model together; None if that cannot be."""
        if self._group is None or self._group[0] is not llm:
            most = min(self._parallel, places(llm))
            self._group = llm, llm.together(most) if most > 1 else None
        return self._group[1]


def places(llm: LLM) -> int:
    """How many answers at a time there is memory for; 1 for a model that decodes one text at a time.

    And for one whose experts are streamed: they have the memory, and a prompt that is read relies on those that are there.
    """
    if llm.engine.most_tokens == 1 or llm.engine.expert_loader:
        return 1
    return max(1, int(available_memory() // _LEFT // max(1, llm.engine.state.n_bytes)))
