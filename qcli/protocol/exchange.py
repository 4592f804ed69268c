"""A request and its answer, as all protocols have them; and which one answers at which path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from qcli.errors import QcliError
from qcli.protocol.chat_completions import ChatCompletion
from qcli.protocol.completions import Completion
from qcli.protocol.events import Event
from qcli.protocol.messages import Message
from qcli.protocol.question import Answered, Question
from qcli.protocol.responses import Response


class Part(Protocol):
    """One of the answers to a request, as it comes."""

    question: Question
    answered: Answered

    def begin(self) -> list[Event]:
        """The events before the first piece."""

    def piece(self, piece: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        """The events of a piece, which is added to what was answered."""

    def end(self) -> list[Event]:
        """The events after the last piece, once the answer has ended."""


class Exchange(Part, Protocol):
    """A request of a protocol, and its answer as it comes: the first of its parts, most often the only one."""

    stream: bool
    ends_with_done: bool

    @property
    def parts(self) -> Sequence[Part]:
        """The answers that it wants."""

    def closing(self) -> list[Event]:
        """The events after the end of all parts."""

    def whole(self) -> dict[str, Any]:
        """The body of all of it."""

    def failed(self, problem: QcliError) -> Event:
        """The event that ends a stream in its midst."""


Make = Callable[[dict[str, Any], str, int, bool], Exchange]  # of a body, an id, a time, and whether it tells thoughts

EXCHANGES: Final[dict[str, Make]] = {
    "/v1/chat/completions": ChatCompletion,
    "/v1/completions": Completion,
    "/v1/responses": Response,
    "/v1/messages": Message,
}
