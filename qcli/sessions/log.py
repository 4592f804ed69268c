"""A conversation's file, open to be added to: nothing that was written is ever changed or erased."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from qcli.errors import OutputError
from qcli.host.append_file import AppendFile
from qcli.sessions import reader
from qcli.sessions.records import header_change_line, header_line, mark_line, message_line
from qcli.sessions.session import Message as Message
from qcli.sessions.session import Session


class SessionLog(Session):
    """A session whose changes are on the disk before they are made here; the file appears with the first of them.

    Every change raises OutputError if it cannot be written: file and session are then as they were.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], name: str = "") -> None:
        """A new session, which has no file yet."""
        now = time.time()
        super().__init__({"created": now, **header}, name, changed=now)
        self.path = path
        self.damaged = 0  # lines that were left out
        self._file = AppendFile(path)
        self._end = 0  # of what the file holds of this session

    @classmethod
    def open(cls, path: Path, called: str) -> SessionLog:
        """The session of a file, which errors call so, and which is locked until `close`.

        Raises UsageError if another process has it open, OutputError if it cannot be written, QcliError if it cannot be read.
        """
        file = AppendFile.open(path, called)
        try:
            with file.reader() as opened:
                found = reader.read(opened)
        except BaseException:
            file.close()
            raise
        log = cls(path, {})
        vars(log).update(vars(found.session), damaged=found.damaged, _file=file, _end=found.end)
        return log

    def append(self, *messages: Message) -> None:
        """Add messages, with ids from `next_id` on, each after one that is there; the head is then the last of them.

        Messages that have no time get that of now.
        """
        known, last = dict(self.messages), self.next_id() - 1
        for message in messages:
            if message.id <= last or (message.parent is not None and message.parent not in known):
                raise ValueError(f"message {message.id} cannot follow message {message.parent}")
            known[message.id], last = message if message.time else replace(message, time=time.time()), message.id
        if messages:
            self._change([message_line(known[message.id]) for message in messages], messages=known, head=last)

    def set_head(self, id: int | None) -> None:
        """Let the branch that ends with this message go on; None: begin anew."""
        if id is not None and id not in self.messages:
            raise ValueError(f"there is no message {id}")
        self._change([], head=id)

    def set_name(self, name: str) -> None:
        """Give it a name, which `Library.check_name` has found good. A session without a file has it from the first one on."""
        self._change([], name=name, changed=self.changed)

    def set_header(self, **changes: Any) -> None:
        """Change keys of the header: another model goes on with it."""
        self._change([header_change_line(changes)], header={**self.header, **changes})

    def close(self) -> None:
        """Close and unlock the file; the session can still be read."""
        self._file.close()

    def __enter__(self) -> SessionLog:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def _change(self, lines: Iterable[bytes], **changes: Any) -> None:
        """Write lines and the mark of the session as it is after these changes, then make them here."""
        after = Session(**{**self._values(), "changed": time.time(), **changes})
        if self._end:
            self._add([*lines, mark_line(after)])
        elif after.messages:
            self._add([header_line(after.header), *map(message_line, after.messages.values()), mark_line(after)])
        vars(self).update(vars(after), _end=self._file.end)

    def _values(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(Session)}

    def _add(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        if self._end + len(data) > reader.MAX_FILE or max(map(len, lines)) > reader.MAX_LINE:
            raise OutputError(f"{self.path}: has no room for so much", "begin a new conversation")
        self._file.cut(self._end)  # a torn end, or what Ctrl-C kept from being known here
        self._file.append(data)
