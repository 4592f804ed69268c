"""The conversations that are kept: listed, found by name or number, opened, renamed, removed."""

from __future__ import annotations

import os
import stat
import time
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from random import SystemRandom
from string import ascii_lowercase
from typing import Any, BinaryIO

from qcli.errors import OutputError, QcliError, UsageError
from qcli.host import folders
from qcli.host.append_file import AppendFile
from qcli.host.atomic_files import output_errors
from qcli.sessions import reader
from qcli.sessions.log import SessionLog
from qcli.sessions.records import MAX_NAME, Mark, is_name
from qcli.sessions.session import Session
from qcli.wording import counted, shortened

LIST = "`qcli sessions` lists them"
_ENDING = ".jsonl"
_DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Summary:
    """What a list shows of a conversation."""

    number: int  # 1 is the newest
    id: str  # of its file, and never another's
    name: str  # "" if it has none
    title: str  # how the user's first message begins
    model: str
    messages: int  # of the branch that goes on
    changed: float  # seconds since 1970
    size: int  # bytes of its file
    path: Path

    @property
    def called(self) -> str:
        """What messages call it."""
        return shortened(self.name or self.title or self.id)


class Library:
    """A folder of conversations."""

    def __init__(self, folder: Path | None = None) -> None:
        """The user's own folder, unless another is given; where there is no home nothing is kept, and `create` says so."""
        self.folder = folder
        if folder is None:
            with suppress(FileNotFoundError):
                self.folder = folders.data() / "sessions"

    def create(self, header: Mapping[str, Any], name: str = "") -> SessionLog:
        """A new conversation, whose file appears with its first message. Raises UsageError for a name, OutputError."""
        if self.folder is None:
            raise OutputError("there is no home folder for conversations", "set the variable HOME to a folder")
        named = self.check_name(name) if name else ""
        letters = "".join(SystemRandom().choices(ascii_lowercase, k=6))
        return SessionLog(self.folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{letters}{_ENDING}", header, named)

    def list(self) -> list[Summary]:
        """All conversations, the one that was changed last first. Raises QcliError if the folder cannot be read."""
        found = sorted(self._marks(), key=lambda item: (_believed(item[1].changed), item[0].name), reverse=True)
        return [_summary(number, *item) for number, item in enumerate(found, 1)]

    def find(self, wanted: str) -> Summary:
        """The conversation of a name, an id or a number of the list; "-" is the one before the last. Raises UsageError."""
        listed = self.list()
        if wanted == "-" or (wanted.isdecimal() and len(wanted) < 10):
            return _numbered(listed, 2 if wanted == "-" else int(wanted))
        found = [summary for summary in listed if wanted and wanted in (summary.name, summary.id)]
        found = found or [summary for summary in listed if wanted and _folded(wanted) == _folded(summary.name)]
        if len(found) > 1:
            numbers = " and ".join(str(summary.number) for summary in found)
            raise UsageError(f"{len(found)} conversations are called {shortened(wanted)!r}", f"numbers {numbers}")
        if not found:
            raise UsageError(f"no conversation is called {shortened(wanted)!r}", _closest(wanted, listed))
        return found[0]

    def last(self) -> Summary:
        """The conversation that was changed last. Raises UsageError if there is none."""
        return _numbered(self.list(), 1)

    def open(self, summary: Summary) -> SessionLog:
        """A conversation to go on with, locked until it is closed; tells of damaged lines by a warning.

        Raises UsageError if another process has it open, OutputError if it cannot be written, QcliError if it cannot be read.
        """
        log = SessionLog.open(summary.path, summary.called)
        _tell(summary, log.damaged)
        return log

    def read(self, summary: Summary) -> Session:
        """A conversation to look at, also while another process has it open. Raises QcliError."""
        try:
            with open(summary.path, "rb") as file:
                found = reader.read(file)
        except OSError as problem:
            raise QcliError(f"{summary.path}: cannot be read: {problem.strerror or problem}", LIST) from None
        _tell(summary, found.damaged)
        return found.session

    def rename(self, summary: Summary, name: str) -> None:
        """Give a conversation another name. Raises what `check_name` and `open` do."""
        named = self.check_name(name, but=summary.path)
        with self.open(summary) as log:
            log.set_name(named)

    def remove(self, summary: Summary) -> None:
        """Delete a conversation. Raises UsageError if another process has it open, OutputError."""
        AppendFile.open(summary.path, summary.called).close()
        with output_errors(summary.path):
            summary.path.unlink()

    def check_name(self, name: str, but: Path | None = None) -> str:
        """A name that a conversation may have, normalized; `but` is its file if it has one already. Raises UsageError."""
        named = unicodedata.normalize("NFC", name.strip())
        if not is_name(named):
            what = f"{shortened(name)!r} cannot be the name of a conversation"
            raise UsageError(what, f"give one of at most {MAX_NAME} characters, no number and without slashes")
        others = (summary for summary in self.list() if summary.path != but)
        if any(_folded(summary.name) == _folded(named) for summary in others):
            raise UsageError(f"a conversation is called {named!r} already", "give another name, or rename that one")
        return named

    def _marks(self) -> Iterator[tuple[Path, Mark, int]]:
        """Every file with something in it: what it says of itself, and its size. Warns of those that say nothing."""
        for path in self._paths():
            try:
                if (found := path.stat()).st_size and stat.S_ISREG(found.st_mode):
                    with open(path, "rb") as file:
                        mark = reader.last_mark(file, found.st_size) or _read_mark(file)
                    if mark is not None:
                        yield path, mark, found.st_size
                    else:
                        warnings.warn(f"{path}: is damaged: no conversation in it can be read", stacklevel=2)
            except OSError as problem:
                warnings.warn(f"{path}: cannot be read: {problem.strerror or problem}", stacklevel=2)

    def _paths(self) -> Sequence[Path]:
        try:
            names = os.listdir(self.folder) if self.folder else []
        except FileNotFoundError:
            return ()
        except OSError as problem:
            reason = problem.strerror or problem
            raise QcliError(f"{self.folder}: cannot be read: {reason}", "check its permissions") from None
        return [Path(self.folder or "", name) for name in names if name.endswith(_ENDING)]


def _read_mark(file: BinaryIO) -> Mark | None:
    """What a file without a mark near its end holds, after reading all of it; None if that is nothing."""
    file.seek(0)
    with suppress(QcliError):
        session = reader.read(file).session
        if session.messages:
            count = len(session.branch())
            return Mark(session.head, session.name, session.title, session.model, count, session.changed)
    return None


def _believed(changed: float) -> float:
    """A time; 0 for one that has not come, noted when the clock was wrong: what is changed now goes before it."""
    return changed if changed < time.time() + _DAY else 0.0


def _summary(number: int, path: Path, mark: Mark, size: int) -> Summary:
    return Summary(number, path.stem, mark.name, mark.title, mark.model, mark.messages, mark.changed, size, path)


def _numbered(listed: list[Summary], number: int) -> Summary:
    if not listed:
        raise UsageError("there is no saved conversation yet", "`qcli chat` begins one")
    if not 0 < number <= len(listed):
        said = f"there is no conversation {number}" if number != 2 else "there is no conversation before the last"
        raise UsageError(f"{said}, there are {len(listed)}", LIST)
    return listed[number - 1]


def _closest(wanted: str, listed: list[Summary]) -> str:
    names = {_folded(summary.name): summary.name for summary in listed if summary.name}
    close = get_close_matches(_folded(wanted), names, n=1)
    return f"did you mean {names[close[0]]}? {LIST}" if close else LIST


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _tell(summary: Summary, damaged: int) -> None:
    if damaged:
        warnings.warn(f"{summary.called}: {counted(damaged, 'damaged line')} of it left out", stacklevel=3)
