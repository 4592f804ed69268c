"""A summary that a model writes of old turns, and sees in place of them from then on. The turns stay in the log."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from time import time
from typing import Any, Final

from qcli.errors import ContextOverflowError, QcliError, UsageError
from qcli.sessions import context
from qcli.sessions.model import Model
from qcli.sessions.session import Message
from qcli.text.thoughts import Thought
from qcli.wording import counted

STAY: Final = 2  # turns, the last ones; of two, one
_REQUEST: Final = (
    "Sum up our conversation so far, so that you can go on from your summary alone. Keep what I want and what we have "
    "decided, names, numbers, and code that is still needed, and what is open. Use the language that we speak, be brief, "
    "and write nothing but the summary."
)
_CHANGED = "nothing was changed"


class Summary:
    """The summary of all but the last turns of a branch, on its way."""

    def __init__(self, llm: Model, branch: Sequence[Message]) -> None:
        """Raises UsageError if there is no turn but those that stay."""
        self._llm, self._branch = llm, branch
        self._left_out = context.left_out_before(branch, llm.engine.ctx)
        further = [cut for cut in context.cuts(branch) if cut > self._left_out]
        if not further:
            raise UsageError("there is nothing to sum up yet", "the last turns stay as they are: go on talking")
        self._end = further[-STAY] if len(further) >= STAY else further[-1]
        self._text: list[str] = []

    def pieces(self, options: Mapping[str, Any]) -> Generator[str, None, None]:
        """The pieces of the summary; options: as LLM.chat takes them. Raises QcliError if there is no room for it."""
        most = self._llm.engine.ctx // context.ROOM
        given = {**options, "max_tokens": most, "stop": None, "stop_loops": True}
        given |= {"tool_choice": "none"} if options.get("tools") else {}
        try:
            with closing(self._llm.chat(self._request(), **given)) as answer:
                for piece in answer:
                    if not isinstance(piece, Thought):
                        self._text.append(piece)
                    yield piece
        except ContextOverflowError:
            hint = "take turns back, begin anew, or give a larger context"
            raise QcliError(f"the context has no room to sum it up: {_CHANGED}", hint) from None

    def message(self) -> Message:
        """The summary as a message of the log. Raises QcliError if it is none."""
        text = "".join(self._text).strip()
        replaced = context.talk(self._branch)[self._left_out : self._end]
        before, after = sum(map(self._size, replaced)), len(self._llm.tokenize(text))
        if not text:
            raise QcliError(f"the summary is empty: {_CHANGED}", "try again")
        if self._llm.stats.finish_reason != "stop":
            raise QcliError(f"the summary did not come to an end: {_CHANGED}", "try again, or give a larger context")
        if after >= before:
            said = f"the summary has {counted(after, 'token')}, the turns have {before:,}: {_CHANGED}"
            raise QcliError(said, "sum up when there is more")
        figures = {
            "up_to": replaced[-1].id,
            "turns": sum(message.role == "user" for message in replaced),
            "replaced_tokens": before,
            "new_tokens": after,
            "model": self._llm.name,
        }
        return Message(0, None, "summary", text, finish_reason="stop", figures=figures, time=time())

    def _request(self) -> list[dict[str, Any]]:
        stay = len(context.talk(self._branch)) - self._end
        seen = context.prompt(self._branch, self._left_out, self._llm)
        return [*seen[: len(seen) - stay], {"role": "user", "content": _REQUEST}]

    def _size(self, message: Message) -> int:
        return len(message.ids) if context.is_of(message, self._llm) else len(self._llm.tokenize(message.text))
