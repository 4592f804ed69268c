"""Reading a conversation's file: all of it, or its last mark alone. Damaged lines are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from qcli.errors import QcliError
from qcli.sessions.records import VERSION, Mark, header_of, mark_of, message_of, parsed
from qcli.sessions.session import Message, Session

MAX_LINE = 16 << 20  # bytes, beyond any context
MAX_FILE = 256 << 20  # bytes: some 20,000 answers of 1,000 tokens
MAX_MESSAGES = 1_000_000
_TAIL = 8192  # bytes at the end, among which the last mark is
_MAY_FOLLOW = {
    "system": {"system"},
    "user": {"assistant", "tool", "system", "summary"},
    "assistant": {"user", "tool", "summary"},
    "tool": {"assistant", "tool"},
    "summary": {"assistant"},
}


@dataclass
class Found:
    """What was read of a file: the session, how many bytes of it count, and how many lines are damaged."""

    session: Session = field(default_factory=Session)
    end: int = 0
    damaged: int = 0


def read(file: BinaryIO) -> Found:
    """Read a conversation's file. Raises QcliError if it is too large, or of a later version."""
    reader = _Reader()
    for line, end in _whole_lines(file):
        if end > MAX_FILE:
            raise QcliError(f"this conversation is larger than {MAX_FILE >> 20} MiB", "begin a new one")
        reader.take(line, end)
    return reader.result()


def last_mark(file: BinaryIO, size: int) -> Mark | None:
    """The last mark of a file of so many bytes; None if there is none near its end."""
    file.seek(max(0, size - _TAIL))
    lines = file.read(_TAIL).split(b"\n")[:-1]  # what follows the last newline is no whole line
    for line in reversed(lines if size <= _TAIL else lines[1:]):
        record = parsed(line)
        if record and "head" in record and (mark := mark_of(record)):
            return mark
    return None


class _Reader:
    """Takes line after line; messages count when a mark follows."""

    def __init__(self) -> None:
        self._found = Found()
        self._waiting: list[Message] = []  # no mark has followed yet
        self._changes: dict[str, Any] = {}  # of the header, likewise
        self._lines = self._last = self._end = 0

    def take(self, line: bytes, end: int) -> None:
        """Take the line that ends before byte `end`."""
        record = parsed(line)
        self._lines += 1
        if record is None or ("version" in record and self._lines > 1):
            self._found.damaged += 1
            return
        self._end = end
        if "version" in record:
            self._begin(record)
            self._found.end = end
        elif "id" in record:
            self._take_message(message_of(record))
        elif "head" in record:
            self._take_mark(mark_of(record))
        elif isinstance(record.get("header"), dict):
            self._changes |= header_of(record["header"])

    def result(self) -> Found:
        """What was found. A turn that is whole but for its mark counts, too."""
        if self._waiting and self._waiting[-1].role == "assistant":
            last, session = self._waiting[-1], self._found.session
            self._settle()
            session.head, session.changed = last.id, last.time
        return self._found

    def _begin(self, record: dict[str, Any]) -> None:
        if type(record["version"]) is int and record["version"] > VERSION:
            raise QcliError("this conversation was written by a newer version of qcli", "go on with it by that version")
        self._found.session.header = header_of(record)

    def _take_message(self, message: Message | None) -> None:
        if message is None or message.id <= self._last or len(self._found.session.messages) >= MAX_MESSAGES:
            self._found.damaged += 1
        else:
            self._last = message.id
            self._waiting.append(message)

    def _take_mark(self, mark: Mark | None) -> None:
        if mark is None:
            self._found.damaged += 1
            return
        self._settle()
        session = self._found.session
        session.name, session.changed, session.head = mark.name, mark.changed, mark.head
        if mark.head is not None and mark.head not in session.messages:  # it is damaged
            session.head = _before(session.messages, mark.head, _MAY_FOLLOW["user"])

    def _settle(self) -> None:
        """Let count what waits; a message whose parent is damaged follows the last one before it that it may follow."""
        session = self._found.session
        for message in self._waiting:
            parent = message.parent
            if parent is not None and parent not in session.messages:
                parent = _before(session.messages, message.id, _MAY_FOLLOW[message.role])
            session.messages[message.id] = replace(message, parent=parent)
        session.header |= self._changes
        self._waiting.clear()
        self._changes = {}
        self._found.end = self._end


def _before(messages: Mapping[int, Message], id: int, roles: set[str]) -> int | None:
    """The last message before this one that has one of these roles."""
    return next((other for other in reversed([*messages]) if other < id and messages[other].role in roles), None)


def _whole_lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Lines that a newline ends, and the byte after each; one that is too long is empty."""
    end, too_long = 0, False
    while piece := file.readline(MAX_LINE):
        end += len(piece)
        if piece.endswith(b"\n"):
            yield b"" if too_long else piece, end
        too_long = not piece.endswith(b"\n")
