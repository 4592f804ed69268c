"""A conversation as a tree of messages, one branch of which goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ROLES: Final = ("system", "user", "assistant", "tool", "summary")
COMPLETE: Final = ("stop", "tool_calls")  # how an answer ends that nothing is missing of
_TITLE = 80  # characters


@dataclass(frozen=True)
class Message:
    """A message, and of an answer what is needed to go on from it, or to get it again."""

    id: int  # 1, 2, … in the order they were written
    parent: int | None  # the message before it in its branch
    role: str  # one of ROLES
    text: str
    thoughts: str = ""
    ids: tuple[int, ...] = ()  # an answer's token ids as generated, without the one that ended it
    finish_reason: str = ""  # "stop", "tool_calls", "length", "loop", "interrupted"
    sampling: Mapping[str, Any] = field(default_factory=dict)  # the options of the answer, with the seed that was used
    figures: Mapping[str, Any] = field(default_factory=dict)  # prompt_tokens, new_tokens, timings; of a summary, up_to
    time: float = 0.0  # when it was written, in seconds since 1970
    calls: tuple[Mapping[str, str], ...] = ()  # an answer's tool calls: "id", "name", "arguments" as JSON
    call: str = ""  # the id of the call that a tool's message answers


@dataclass
class Session:
    """A conversation: its messages by id, and the head, which is the last one of the branch that goes on."""

    header: dict[str, Any] = field(
        default_factory=dict
    )  # "created" seconds; "model", "path", "fingerprint", "template"
    name: str = ""  # "" if it was given none
    messages: dict[int, Message] = field(default_factory=dict)  # in the order of their ids
    head: int | None = None
    changed: float = 0.0  # seconds since 1970

    def branch(self, head: int | None = None) -> list[Message]:
        """The messages from the first one to `head`, in their order; unless told, to the session's head."""
        found: list[Message] = []
        at = self.head if head is None else head
        while at is not None:
            found.append(message := self.messages[at])
            at = message.parent
        return found[::-1]

    def next_id(self) -> int:
        """The id of the next message that is written."""
        return next(reversed(self.messages), 0) + 1

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.header.get("model", ""))

    @property
    def title(self) -> str:
        """The beginning of the user's first message in one line: of the branch, or if that has none, of all."""
        messages = (*self.branch(), *self.messages.values())
        first = next((message.text for message in messages if message.role == "user"), "")
        words = " ".join(first[: 10 * _TITLE].split())
        return words if len(words) <= _TITLE else words[: _TITLE - 1] + "…"
