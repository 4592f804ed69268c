"""What a chat works on: the model, the conversation that goes on, and how its answers are shown."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcli import console
from qcli.commands.answer import Screen, discard, figures, show
from qcli.errors import ContextOverflowError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from qcli.llm import LLM
    from qcli.sessions.conversation import Conversation
    from qcli.sessions.library import Library, Summary
    from qcli.sessions.log import SessionLog


@dataclass
class Talk:
    """A chat, whose conversation may be left for another one."""

    llm: LLM
    conversation: Conversation
    library: Library
    bar: console.status
    quiet: bool
    interactive: bool  # whether a person types
    make: Callable[[SessionLog | None, str | None], Conversation]  # of a log or a new one, with another system message
    before: Path | None = None  # the file of the conversation that was left for this one
    plain: bool = False  # whether Markdown stays as the model writes it
    incomplete: bool = False  # whether a message was not answered, or not recorded as it should be
    _full: bool = False  # whether the last message did not

    def say(self, pieces: Generator[str, None, None]) -> None:
        """Show an answer as it comes; one that has no room is told of, and the chat goes on."""
        screen = Screen(self.plain)
        try:
            with self.bar:
                shown, interrupted = show(pieces, self.bar, screen, discard if self.quiet else console.aside)
        except ContextOverflowError as problem:
            self._tell_of_overflow(problem)
            return
        self._full = False
        self.incomplete = self.incomplete or self.conversation.problem is not None
        screen.end_line(shown)
        if not self.quiet:
            console.figures(figures(self.llm.stats))
        if interrupted and not self.interactive:
            raise KeyboardInterrupt

    def go_to(self, conversation: Conversation) -> None:
        """Leave the conversation for another one, which is open already."""
        self.before = self.path or self.before
        self.conversation.close()
        self.conversation = conversation
        self._full = False

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *problem: object) -> None:
        self.conversation.close()

    @property
    def path(self) -> Path | None:
        """The file of the conversation; None if it is in memory alone."""
        path: Path | None = getattr(self.conversation.log, "path", None)
        return path

    def found(self, wanted: str) -> Summary:
        """The recorded conversation of a name or number; "-" is the one before this one. Raises UsageError."""
        if wanted != "-":
            summary = self.library.find(wanted)
            if summary.path == self.path:
                raise UsageError("this is that conversation", "/sessions lists the others")
            return summary
        others = [summary for summary in self.library.list() if summary.path != self.path]
        if not others:
            raise UsageError("there is no other conversation yet", "/clear begins a new one")
        return next((summary for summary in others if summary.path == self.before), others[0])

    def _tell_of_overflow(self, problem: ContextOverflowError) -> None:
        self.incomplete = True
        if self._full:
            console.info("not answered: the context is still full")
        else:
            hint = "/undo takes turns back, /clear begins anew; --ctx gives a larger context, --ctx-full oldest goes on"
            console.error(ContextOverflowError(f"not answered: {problem.message}", hint))
        self._full = True


def number(typed: str, command: str) -> int:
    """How many turns are meant: 1 unless a number was typed. Raises UsageError."""
    if not typed:
        return 1
    if not (typed.isdecimal() and len(typed) < 7 and int(typed)):
        raise UsageError(f"/{command} takes a number of turns, not {typed!r:.40}", f"type /{command}, or /{command} 2")
    return int(typed)
