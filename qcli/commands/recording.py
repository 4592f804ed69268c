"""What `run` and `chat` share: which conversation is meant, which model goes on with it, and whether it is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcli.errors import ModelNotFoundError, OutputError, UsageError
from qcli.wording import counted, shortened

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from qcli import console
    from qcli.llm import LLM
    from qcli.runtime.checkpoint import Keep
    from qcli.runtime.resume import Resumed
    from qcli.sessions.conversation import Conversation
    from qcli.sessions.library import Library
    from qcli.sessions.log import SessionLog
    from qcli.sessions.session import Session


@dataclass(frozen=True)
class Wanted:
    """What was typed of conversations."""

    go_on: bool = False  # with the last one
    resume: str | None = None
    save: bool = False
    name: str | None = None
    no_save: bool = False
    ctx_full: str = "stop"

    def __post_init__(self) -> None:
        """Raises UsageError for what cannot be meant together."""
        from qcli.sessions import context

        context.checked(self.ctx_full, "--ctx-full")
        if self.go_on and self.resume is not None:
            raise UsageError("--continue and --resume cannot be used together", "leave out one of them")
        if self.no_save and (self.save or self.name is not None):
            raise UsageError("--no-save saves nothing", "leave it out, or leave out --save and --name")
        if self.name is not None and self.old:
            hint = "`qcli sessions rename` gives it another, or leave out --name"
            raise UsageError("--name is for a new conversation, and that one already exists", hint)

    @property
    def old(self) -> bool:
        """Whether a conversation is gone on with that is there already."""
        return self.go_on or self.resume is not None

    def keep(self, recorded: bool, otherwise: Keep = None) -> Keep:
        """What states are kept on disk: those of a conversation that is recorded, `otherwise` of another one."""
        if self.no_save:
            return None
        return "turns" if recorded or self.old else otherwise

    def note_use(self, llm: LLM) -> None:
        """Note that the model was loaded now, which `qcli models` tells; of what records nothing, not that either."""
        from qcli.local_models import last_used

        if not self.no_save:
            last_used.note(llm.file.path)

    def opened(self, library: Library, stack: ExitStack) -> SessionLog | None:
        """The conversation to go on with, which `stack` closes; None for a new one. Raises UsageError, OutputError, QcliError."""
        if self.name is not None:
            library.check_name(self.name)  # before anything takes long
        if not self.old:
            return None
        return stack.enter_context(library.open(library.last() if self.resume is None else library.find(self.resume)))

    def conversation(
        self,
        llm: LLM,
        library: Library,
        log: SessionLog | None,
        tell: Callable[[str], object],
        *,
        records: bool,
        system: str | None,
        options: dict[str, Any],
    ) -> Conversation:
        """The conversation that is meant, on the log that `opened` gave; records: whether a new one is recorded."""
        from qcli.sessions.conversation import Conversation
        from qcli.sessions.header import header_of
        from qcli.sessions.unsaved import Unsaved

        if log is None and records and not self.no_save:
            try:
                log = library.create(header_of(llm), self.name or "")
            except OutputError as problem:  # there is no home: no reason not to talk
                if self.save or self.name:
                    raise
                tell(f"{problem.message}: this one is not saved")
        found = Conversation(llm, log, system=system, ctx_full=self.ctx_full, tell=tell, library=library, **options)
        if log is not None and self.no_save:
            found.log = Unsaved.of(log)
            log.close()
        return found


def called(name: str, title: str) -> str:
    """What a conversation is called: its name, else how it begins."""
    return name or (f'"{shortened(title)}"' if title else "a conversation")


def model_of(log: Session | None) -> str | None:
    """The model that a conversation was held with: a name, or the path of its file if no name means that; None for none.

    Raises ModelNotFoundError if it is no longer there.
    """
    if log is None:
        return None
    from qcli.catalog.resolve import resolve

    path = str(log.header.get("path", ""))
    is_there = bool(path) and Path(path).is_file()
    try:
        if resolve(log.model)[0] == Path(path) or not is_there:
            return log.model
    except ModelNotFoundError:
        if not is_there:
            message = f"{path or log.model}: the model of this conversation is no longer there"
            raise ModelNotFoundError(
                message, "-m MODEL goes on with another, or with the same in another place"
            ) from None
    return path


def bring_back(conversation: Conversation, bar: console.status, tell: Callable[[str], object]) -> None:
    """Bring a conversation back, and tell how long it is, what of it was not known any more, and what has changed."""
    came = come_back(conversation, bar)
    more = ""
    if came is not None:
        again = f"{came.missing:,} of them read again" if came.missing else "nothing to read again"
        more = f" · {counted(came.tokens, 'token')}, {came.seconds:.1f} s, {again}"
    tell_of_resumed(conversation, tell, more)


def come_back(conversation: Conversation, bar: console.status) -> Resumed | None:
    """Have the model know a conversation before anything is asked; None if it has no room, or Ctrl-C ended it."""
    try:
        with bar:
            bar.begin("reading")
            return conversation.bring_back()
    except KeyboardInterrupt:  # what is missing is read with the next message
        return None


def tell_of_resumed(conversation: Conversation, tell: Callable[[str], object], more: str = "") -> None:
    """Tell which conversation goes on, how long it is, and what is not as it was."""
    from qcli.sessions.header import what_differs

    log = conversation.log
    tell(f"back in {called(log.name, log.title)}: {counted(len(log.branch()), 'message')}{more}")
    if log.messages and (differs := what_differs(log.header, conversation.llm)):
        tell(differs)
