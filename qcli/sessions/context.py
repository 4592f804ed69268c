"""The context of a conversation: which of its messages a prompt holds once they do not all fit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, Literal

from qcli.errors import UsageError
from qcli.sessions.calls import in_prompt
from qcli.sessions.model import Model
from qcli.sessions.session import Message

CtxFull = Literal["stop", "oldest"]
CTX_FULL: Final[tuple[CtxFull, ...]] = ("stop", "oldest")
ROOM: Final = 4  # an answer is given a quarter of the context, at least
KEPT: Final = 2  # turns are left out until half of the context is free: each time, the rest is read again


def checked(ctx_full: str, named: str = "ctx_full") -> CtxFull:
    """What is to be done when the context is full; `named` as it was typed. Raises UsageError."""
    for known in CTX_FULL:
        if ctx_full == known:
            return known
    raise UsageError(f"{named} cannot be {ctx_full!r:.40}", f"give {' or '.join(CTX_FULL)}")


def system_text(branch: Sequence[Message]) -> str:
    """The system message that holds at the end of a branch; "" for none."""
    return next((message.text for message in reversed(branch) if message.role == "system"), "")


def prompt(branch: Sequence[Message], left_out: int = 0, llm: Model | None = None) -> list[dict[str, Any]]:
    """The messages of a branch as LLM.chat takes them, without so many of the oldest of user and assistant.

    llm: the model whose own answers are given with the ids by which it generated them.
    """
    system = system_text(branch)
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    names = {call["id"]: call["name"] for message in branch for call in message.calls}
    for message in talk(branch)[left_out:]:
        ids = {"ids": message.ids} if llm and is_of(message, llm) else {}
        messages.append({"role": message.role, "content": message.text, **in_prompt(message, names), **ids})
    return messages


def is_of(answer: Message, llm: Model) -> bool:
    """Whether the ids of an answer are those of this model."""
    return bool(answer.ids) and answer.figures.get("model") == llm.name and max(answer.ids) < llm.engine.vocab_size


def talk(branch: Sequence[Message]) -> list[Message]:
    """What user and assistant say, and tools give back."""
    return [message for message in branch if message.role != "system"]


def left_out_before(branch: Sequence[Message], ctx: int) -> int:
    """How many messages the last answer's prompt left out, in a context of this size."""
    last = next((message for message in reversed(branch) if message.role == "assistant"), None)
    found = last.figures.get("left_out", 0) if last and last.figures.get("ctx") == ctx else 0
    return found if type(found) is int and found in cuts(branch) else 0


def cuts(branch: Sequence[Message]) -> list[int]:
    """How many messages may be left out, from none to all but the last turn: whole turns alone."""
    said = talk(branch)
    return [0] + [
        i
        for i, (before, now) in enumerate(pairwise(said), 1)
        if before.role in ("assistant", "tool") and now.role == "user"
    ]


def fitting(branch: Sequence[Message], at_least: int, ctx: int, room: int, size: Callable[[int], int]) -> int:
    """How many messages to leave out, so that the prompt leaves room in a context of `ctx` tokens.

    at_least: as many as were left out before; room: tokens of the answer; size: the prompt's tokens without so many.
    As many are left out as before if there is room, else so many that half of the context is free, if there are.
    """
    if size(at_least) + room <= ctx:
        return at_least
    further = [cut for cut in cuts(branch) if cut > at_least]
    if not further:
        return at_least
    found = bisect_left(further, True, key=lambda cut: size(cut) <= ctx // KEPT)
    return further[min(found, len(further) - 1)]
