"""What whoever asks sees of the engine: questions are submitted, and what comes of each is told as it comes.

How many are answered at a time, and in which order their tokens are computed, is the business of whoever implements this;
each question is told of by itself, and its answer depends on it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from qcli.errors import QcliError
from qcli.protocol.question import Question
from qcli.runtime.stats import Stats


@dataclass(frozen=True)
class Working:
    """The question has its turn: a stage, such as reading its prompt, and how far that is, 0 to 1."""

    stage: str
    fraction: float


@dataclass(frozen=True)
class Begun:
    """The prompt is read, and the answer begins."""

    prompt_tokens: int
    cached_tokens: int  # of them, which did not have to be read


@dataclass(frozen=True)
class Said:
    """A piece of the answer, as LLM.chat yields it, and log-probabilities that came since the last, if they are wanted."""

    piece: str
    logprobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Done:
    """The answer is over; of one that was cancelled, the finish_reason is that."""

    stats: Stats


@dataclass(frozen=True)
class Failed:
    """There is no answer, or no more of it."""

    problem: QcliError


Told = Working | Begun | Said | Done | Failed  # the last of a question is Done or Failed, and nothing comes after it


class QueueFullError(QcliError):
    """As many questions wait as may wait."""


class ClosedError(QcliError):
    """No more questions are answered."""


class Ticket(Protocol):
    """A question that was submitted."""

    def cancel(self) -> None:
        """Have its place freed: at once while it waits, else after the step that is being computed; from any thread."""


class Answers(Protocol):
    """Answers questions, first come, first served."""

    def submit(self, question: Question, tell: Callable[[Told], None]) -> Ticket:
        """Have a question answered; tell: called from a thread of the implementation, quickly, never twice at a time.

        Raises QueueFullError, ClosedError.
        """

    @property
    def waiting(self) -> int:
        """Questions whose turn has not come."""

    @property
    def running(self) -> int:
        """Questions that are being answered."""

    def close(self) -> None:
        """Cancel what waits and what runs, and end all threads; closing twice does no harm."""


MOST_WAITING: Final = 64
