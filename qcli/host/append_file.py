"""Files that only grow: one process at a time adds to them, and what it adds is there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from qcli.errors import OutputError, QcliError, UsageError
from qcli.host.atomic_files import output_errors, sync_folder

_FLAGS = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # never waits for a pipe
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}  # a file system that has none
_LOCKED_BYTE = (1 << 31) - 2  # Windows lets nobody read a locked byte: it is one that no file has


class AppendFile:
    """A file for its user alone, open and locked; `end` is where what counts ends, and the next addition begins there."""

    def __init__(self, path: Path, descriptor: int = -1, mode: int = 0o600) -> None:
        """An open file; without one, the file is made by the first addition, and its folder if that is not there.

        mode: of a file that is made, who may read it.
        """
        self.path, self._mode = path, mode
        self.end = os.fstat(descriptor).st_size if descriptor >= 0 else 0
        self._torn = False
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path, called: str) -> AppendFile:
        """Open a file that is there, and which errors call so.

        Raises UsageError if another process has it open, OutputError if it cannot be opened for writing.
        """
        with output_errors(path):
            descriptor = os.open(path, _FLAGS)
        try:
            _check(path, descriptor, called)
            return cls(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def reader(self) -> BinaryIO:
        """The file from its beginning, to read; to be closed by the caller."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return open(self._descriptor, "rb", closefd=False)

    def cut(self, end: int) -> None:
        """Let what stands after this byte not count: the next addition takes its place."""
        self._torn |= end < self.end
        self.end = end

    def append(self, data: bytes) -> None:
        """Add bytes and wait until they are on the disk. Raises OutputError: the file is as it was before, or not there."""
        with output_errors(self.path):
            if self._descriptor < 0:
                self._create(data)
            else:
                self._prepare()
                self._add(data)

    def close(self) -> None:
        """Close the file, which unlocks it; closing twice does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _create(self, data: bytes) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._descriptor = os.open(self.path, _FLAGS | os.O_CREAT | os.O_EXCL, self._mode)
            _lock(self._descriptor)
            self._add(data)
            sync_folder(self.path.parent)
        except FileExistsError:
            if not self.path.exists():
                raise OutputError(f"{self.path}: is a link to a file that is not there", "delete the link") from None
            raise OutputError(f"{self.path}: another program made it meanwhile", "type the same again") from None
        except BaseException:  # Ctrl-C, too
            self.close()
            self.end = 0
            with suppress(OSError):
                self.path.unlink()
            raise

    def _add(self, data: bytes) -> None:
        before = self.end
        try:
            _write(self._descriptor, data)
            _sync(self._descriptor)
            self.end = before + len(data)
        except BaseException:
            self.end, self._torn = before, True
            with suppress(OSError):
                self._cut_off()
            raise

    def _prepare(self) -> None:
        """Cut off what does not count, unless others have written the file."""
        found = os.fstat(self._descriptor)
        if not found.st_nlink:
            raise OutputError(f"{self.path}: was removed meanwhile", "begin a new one")
        if found.st_size != self.end and not self._torn:
            raise OutputError(f"{self.path}: another program wrote to it meanwhile", "leave, and go on with it")
        if self._torn:
            self._cut_off()

    def _cut_off(self) -> None:
        os.ftruncate(self._descriptor, self.end)
        self._torn = False


def _check(path: Path, descriptor: int, called: str) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OutputError(f"{path}: is not a file", "move it away")
    if not _lock(descriptor):
        raise UsageError(f"{called}: another qcli has it open", "leave that one first")
    if not os.fstat(descriptor).st_nlink:
        raise QcliError(f"{called}: was removed just now", "type the same again")


def _lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; False if another process has it. Without effect where there are no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        return problem.errno in _NO_LOCKS
    return True


def _write(descriptor: int, data: bytes) -> None:
    """All of it: the system may take a part at a time, the last one before a full disk among them."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as problem:
        if problem.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # file systems that cannot
            raise
