"""One answer of a conversation on its way: in a context that may be full before it begins, or in its midst."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from qcli.errors import ContextOverflowError
from qcli.host.signals import interrupts_wait
from qcli.sessions import context
from qcli.sessions.context import CtxFull
from qcli.sessions.model import Model
from qcli.sessions.said import Said
from qcli.sessions.session import Message
from qcli.wording import counted

_OF_THE_TEMPLATE = 2048  # bytes that a template may add to messages, and some more for each
_ANOTHER = "Zq?"  # a question that nobody asks


class Reply:
    """The answer to the last message of a branch; what has come of it is in `said`."""

    def __init__(
        self,
        llm: Model,
        branch: Sequence[Message],
        said: Said,
        ctx_full: CtxFull,
        tell: Callable[[str], object],
        options: dict[str, Any],
        about: str = "",
    ) -> None:
        """options: as LLM.chat takes them; about: what the last message begins with, and others may begin with, too."""
        self._llm, self._branch, self._said, self._tell = llm, branch, said, tell
        self._oldest = ctx_full == "oldest"
        self._options, self._about = options, about
        self._most: int | None = options.get("max_tokens")
        self._ctx: int = llm.engine.ctx

    def pieces(self) -> Generator[str, None, None]:
        """The pieces of the answer. Raises ContextOverflowError if the message does not fit, before the first piece."""
        if self._oldest:
            self._leave_out(self._fitting(context.left_out_before(self._branch, self._ctx)))
        while True:
            try:
                yield from self._read()
            except ContextOverflowError:
                if self._leave_out_more():
                    continue
                if not self._said.new:
                    raise
                self._said.finish_reason = "length"
            if not self._is_cut_by_context():
                return
            if not self._leave_out_more():
                self._tell(f"the answer stops here: the context of {counted(self._ctx, 'token')} is full")
                return

    def _read(self) -> Generator[str, None, None]:
        """What comes of the answer until it ends, or the context is full."""
        said = self._said
        said.finish_reason = "interrupted"
        options = self._options if self._most is None else {**self._options, "max_tokens": self._most - said.new}
        messages = context.prompt(self._branch, said.left_out, self._llm)
        like = [[*messages[:-1], {"role": "user", "content": self._about + _ANOTHER}]] if self._about else []
        with closing(self._llm.chat(messages, begun=tuple(said.ids), like=like, **options)) as answer:
            try:
                yield from _noted(answer, said)
            finally:
                said.ids = list(answer.ids)
        said.finish_reason = self._llm.stats.finish_reason

    def _is_cut_by_context(self) -> bool:
        return self._said.finish_reason == "length" and (self._most is None or self._said.new < self._most)

    def _leave_out_more(self) -> bool:
        """Leave out at least one turn more; False if there is none, or none may be."""
        further = [cut for cut in context.cuts(self._branch) if cut > self._said.left_out]
        if not self._oldest or not further:
            return False
        self._leave_out(self._fitting(further[0]))
        return True

    def _leave_out(self, messages: int) -> None:
        """Make the prompt without so many messages, and tell of those that it had before."""
        before = max(self._said.left_out, context.left_out_before(self._branch, self._ctx))
        self._said.left_out = messages
        dropped = sum(message.role == "user" for message in context.talk(self._branch)[before:messages])
        if dropped:
            turns = "oldest turn" if dropped == 1 else f"{dropped:,} oldest turns"
            self._tell(f"the context is full: from here on, the model no longer sees the {turns}")

    def _fitting(self, at_least: int) -> int:
        room = (
            self._ctx // context.ROOM
            if self._most is None
            else min(self._most - self._said.new, self._ctx // context.ROOM)
        )
        return context.fitting(self._branch, at_least, self._ctx, room, self._size)

    def _size(self, left_out: int) -> int:
        """Tokens of the prompt without so many messages, and of what has been said: at most, where it is far from full."""
        messages = context.prompt(self._branch, left_out)
        how = {name: self._options.get(name) for name in ("think", "tools")}
        texts = [f"{m['content']}{m.get('tool_calls', '')}" for m in messages] + [
            str(how["tools"] and how["tools"].text)
        ]
        most = sum(len(text.encode("utf-8", "replace")) + 64 for text in texts) + _OF_THE_TEMPLATE
        said = len(self._said.ids) + 1
        if most + said <= self._ctx // context.KEPT:
            return most + said
        return len(self._llm.tokenize(self._llm.render(messages, **how))) + said


def _noted(answer: Generator[str, None, None], said: Said) -> Generator[str, None, None]:
    """The pieces of an answer, each noted before Ctrl-C can come in between: ids, text and what was shown are the same.

    But for the first one, whose prompt may take long.
    """
    piece: str | None = next(answer, None)
    while piece is not None:
        said.add(piece)
        yield piece
        piece = interrupt = None
        try:
            with interrupts_wait():
                piece = next(answer, None)
        except KeyboardInterrupt as came:
            interrupt = came
        if interrupt:
            if piece is not None:
                said.add(piece)
                yield piece
            raise interrupt
