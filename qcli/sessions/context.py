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
SO_FAR: Final = "What have we talked about so far?"  # a question for a summary to be the answer to
NEARLY: Final = 0.9  # of the context
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

    Those that a summary stands for are left out, too; it is the first answer then, as every template has a place for that.
    llm: the model whose own answers are given with the ids by which it generated them.
    """
    system = system_text(branch)
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    begin = summed_up(branch)
    if begin:
        messages += [{"role": "user", "content": SO_FAR}, {"role": "assistant", "content": summaries(branch)[-1].text}]
    names = {call["id"]: call["name"] for message in branch for call in message.calls}
    for message in talk(branch)[max(left_out, begin) :]:
        ids = {"ids": message.ids} if llm and is_of(message, llm) else {}
        messages.append({"role": message.role, "content": message.text, **in_prompt(message, names), **ids})
    return messages


def is_of(answer: Message, llm: Model) -> bool:
    """Whether the ids of an answer are those of this model."""
    return bool(answer.ids) and answer.figures.get("model") == llm.name and max(answer.ids) < llm.engine.vocab_size


def talk(branch: Sequence[Message]) -> list[Message]:
    """What user and assistant say, and tools give back."""
    return [message for message in branch if message.role in ("user", "assistant", "tool")]


def summaries(branch: Sequence[Message]) -> list[Message]:
    """The summaries of what was said before them, of which the last one counts."""
    return [message for message in branch if message.role == "summary"]


def summed_up(branch: Sequence[Message]) -> int:
    """For how many messages of user and assistant, the oldest ones, a summary stands: whole turns, and never the last."""
    if not (found := summaries(branch)):
        return 0
    last = found[-1].figures.get("up_to", 0)
    covered = sum(type(last) is int and 0 < message.id <= last for message in talk(branch))
    return max((cut for cut in _turns(branch) if cut <= covered), default=0)


def left_out_before(branch: Sequence[Message], ctx: int) -> int:
    """How many messages the last answer's prompt left out, in a context of this size, or a summary since stands for."""
    last = next((message for message in reversed(branch) if message.role == "assistant"), None)
    found = last.figures.get("left_out", 0) if last and last.figures.get("ctx") == ctx else 0
    possible = cuts(branch)
    return found if type(found) is int and found in possible else possible[0]


def cuts(branch: Sequence[Message]) -> list[int]:
    """How many messages may be left out, from those that a summary stands for to all but the last turn: whole turns alone."""
    begin = summed_up(branch)
    return [begin, *(cut for cut in _turns(branch) if cut > begin)]


def _turns(branch: Sequence[Message]) -> list[int]:
    """How many messages of user and assistant come before each turn but the first."""
    said = pairwise(talk(branch))
    return [i for i, (before, now) in enumerate(said, 1) if before.role != "user" and now.role == "user"]


def nearly_full(used: int, ctx: int, longest: int, ctx_full: CtxFull) -> str:
    """What is to be told of a context of `ctx` tokens that is nearly full; "" if it is not, or full already.

    longest: the tokens of the largest context that the model was made for.
    """
    if not NEARLY * ctx <= used < ctx:
        return ""
    larger = "--ctx gives a larger one, " if ctx < longest else ""
    what = f"{larger}--ctx-full oldest leaves out the oldest turns"
    what = "the oldest turns will be left out" if ctx_full == "oldest" else what
    return f"the context is nearly full, {used:,} of {ctx:,} tokens: {what}"


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
