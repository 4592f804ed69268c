"""What a chat works on: the model, the conversation that goes on, and how its answers are shown."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qcli import console
from qcli.commands.answer import Screen, show, tell_figures, tell_of_cut_thought, tell_of_loop, thoughts_aside
from qcli.commands.file_texts import Texts, joined, mentioned, read_texts
from qcli.commands.tool_calls import Calls, ToolRunner
from qcli.errors import ContextOverflowError, QcliError, UsageError
from qcli.sessions.session import COMPLETE
from qcli.terminal.keyboard import CTRL_T, Keyboard
from qcli.text.thoughts import Thought
from qcli.wording import counted, quantity

if TYPE_CHECKING:
    from pathlib import Path

    from qcli.llm import LLM
    from qcli.sessions.conversation import Conversation
    from qcli.sessions.library import Library, Summary
    from qcli.sessions.log import SessionLog

    Make = Callable[[LLM, SessionLog | None, str | None, dict[str, Any]], Conversation]

COUNTED = 1 << 20  # characters of a file, of which the tokens are told; of more, the size alone


@dataclass
class Talk:
    """A chat, whose conversation may be left for another one, and whose model may be changed."""

    llm: LLM
    conversation: Conversation
    library: Library
    bar: console.status
    quiet: bool
    interactive: bool  # whether a person types
    make: Make
    load: Callable[[str | None], LLM]
    model: str | None  # as it was named; None: the embedded one
    options: dict[str, Any]  # of every answer, as LLM.chat takes them
    stats: str  # what is told after an answer: short, long or off
    keyboard: Keyboard  # while something is computed, if a person types
    key_is_news: bool = True  # whether nobody was told yet which key ends a thought
    before: Path | None = None  # the file of the conversation that was left for this one
    tools: ToolRunner | None = None  # what the model may call
    plain: bool = False  # whether Markdown stays as the model writes it
    incomplete: bool = False  # whether a message was not answered, or not recorded as it should be
    texts: Texts = field(default_factory=list)  # that the next message is about
    _full: bool = False  # whether the last message did not

    def __post_init__(self) -> None:
        self.keyboard.keys[CTRL_T] = lambda: self.llm.end_thought()

    def ask(self, message: str) -> None:
        """Answer a message, which is about the texts that were read for it, and the files that it names with an @."""
        if self.interactive:
            message, names = mentioned(message)
            self.attach(read_texts(names))
        about, self.texts = joined(self.texts), []
        self.say(self.conversation.ask(message, about=about))

    def attach(self, texts: Texts) -> None:
        """Have the next message be about texts, each of which is told with its size."""
        for name, text in texts:
            tokens = counted(len(self.llm.tokenize(text, special=False)), "token") if len(text) <= COUNTED else ""
            size = quantity(len(text.encode("utf-8", "replace")), "B")
            console.info(" · ".join(filter(None, (name, size, tokens))))
        self.texts = [*self.texts, *texts]

    def say(self, pieces: Generator[str, None, None], goes_on: str = "") -> None:
        """Show an answer as it comes, and run what it calls, whose results the model answers, until it calls nothing.

        goes_on: what was shown of it before.
        """
        whole = self._say(pieces, goes_on)
        if self.tools:
            self.tools.begin()
            while whole and self.tools.answers(self.conversation, self.keys_kept):
                whole = self._say(self.conversation.go_on())

    def _say(self, pieces: Generator[str, None, None], goes_on: str = "") -> bool:
        """Show an answer as it comes; one that has no room is told of, and the chat goes on. False if it is not whole."""
        calls, screen, before = Calls(), Screen(self.plain), self.conversation.log.head
        aside = thoughts_aside(self.llm, self.options.get("think"), self.quiet)
        screen.goes_on(goes_on)
        try:
            if self.interactive and not self.quiet:
                pieces = self._with_word_on_key(pieces)
            with self.keys_kept(), self.bar:
                self.bar.begin("reading")
                shown, interrupted = show(calls.apart(pieces), self.bar, screen, aside)
        except ContextOverflowError as problem:
            self._tell_of_overflow(problem)
            return False
        self._full = False
        self.incomplete = self.incomplete or self.conversation.problem is not None
        if shown or not calls.whole:
            screen.end_line(shown)
        calls.tell_malformed()
        if interrupted and self.interactive and not self.quiet:
            log = self.conversation.log
            can_go_on = log.head != before and log.branch()[-1].finish_reason not in COMPLETE
            console.info("stopped · /continue goes on" if can_go_on else "stopped")
        if not self.quiet:
            tell_of_cut_thought(
                self.llm, shown, "/continue goes on, /set max_tokens gives more, /think off or 500 less"
            )
            tell_of_loop(
                self.llm,
                "/regenerate tries again, /continue goes on, /set repeat_penalty {} helps against it",
                self.options,
            )
        self._tell_figures(between=not calls.whole)
        if interrupted and not self.interactive:
            raise KeyboardInterrupt
        return not interrupted

    @contextmanager
    def keys_kept(self) -> Iterator[None]:
        """Within the block, keep what a person types for the next message, and show nothing of it."""
        with self.keyboard if self.interactive else nullcontext():
            yield

    def set(self, name: str, value: Any) -> None:
        """Have all answers from now on given with this value of an option; None: what suits the model."""
        self.options[name] = self.conversation.options[name] = value

    def begin(self, log: SessionLog | None, system: str | None) -> None:
        """Leave the conversation for that of a log, or for a new one; system: a message in place of the log's."""
        self.go_to(self.make(self.llm, log, system, self.options))

    def go_to(self, conversation: Conversation) -> None:
        """Leave the conversation for another one, which is open already."""
        self.before = self.path or self.before
        self.conversation.close()
        self.conversation = conversation
        self._full = False

    def change_model(self, name: str) -> None:
        """Have another model go on with the conversation; the one before is closed first, as both may not fit into memory.

        Raises QcliError if the model cannot be had; the one before then goes on, and is loaded again if it was closed.
        """
        self.llm.close()
        try:
            self.llm = self.load(name)
            self.model = name
        except QcliError:
            self.llm = self.load(self.model)
            raise
        finally:
            self.conversation.llm = self.llm
            self._full = False

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *problem: object) -> None:
        self.conversation.close()
        self.llm.close()

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
                raise UsageError("you are in that conversation already", "/sessions lists the others")
            return summary
        others = [summary for summary in self.library.list() if summary.path != self.path]
        if not others:
            raise UsageError("there is no other conversation yet", "/clear begins a new one")
        return next((summary for summary in others if summary.path == self.before), others[0])

    def _with_word_on_key(self, pieces: Generator[str, None, None]) -> Generator[str, None, None]:
        """The pieces of an answer; before the first thought of all, a word on the key that ends it."""
        with closing(pieces):
            for piece in pieces:
                if isinstance(piece, Thought) and self.key_is_news:
                    self.key_is_news = False
                    console.info("the model thinks first: Ctrl-T stops that and gets the answer")
                yield piece

    def _tell_figures(self, between: bool) -> None:
        """Tell the figures of an answer; between: whether a turn ends with it."""
        tell_figures(self.llm, self.stats)
        if between and self.interactive and not self.quiet:
            console.info("")  # between this turn and the next

    def _tell_of_overflow(self, problem: ContextOverflowError) -> None:
        self.incomplete = True
        if self._full:
            console.info("not answered: the conversation is still too long")
        else:
            larger = "a larger --ctx, or with " if self.llm.engine.ctx < self.llm.engine.longest else ""
            hint = (
                f"/compact, /undo or /clear makes room; or start qcli with {larger}--ctx-full oldest,"
                " which forgets old messages"
            )
            console.error(ContextOverflowError(f"not answered: {problem.message}", hint))
        self._full = True


def number(typed: str, command: str, of: str = "turns") -> int:
    """How many turns are meant: 1 unless a number was typed. Raises UsageError."""
    if not typed:
        return 1
    if not (typed.isdecimal() and len(typed) < 7 and int(typed)):
        raise UsageError(f"/{command} takes a number of {of}, not {typed!r:.40}", f"type /{command}, or /{command} 2")
    return int(typed)
