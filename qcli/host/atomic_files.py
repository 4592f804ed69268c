"""Output files that appear whole or not at all: written under temporary names in their folders, and renamed at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, ClassVar

from qcli.errors import OutputError
from qcli.host.named_files import reason, require_unused
from qcli.wording import quantity
from quant.renaming import remove, replace


class AtomicFiles:
    """One or more files that are written together. A context manager: an error, or Ctrl-C, leaves none of them behind."""

    unfinished: ClassVar[set[AtomicFiles]] = set()  # being written now; for `bus_error`, which ends the process

    def __init__(self, paths: list[Path], overwrite: bool = False, *, reads: Iterable[Path]) -> None:
        """Raises OutputError if a file exists and may not be overwritten, or its folder does not exist.

        reads: every file that what is written is made from; none of them is replaced, whatever name or link leads to it.
        """
        self.paths = paths
        self._overwrite = overwrite
        self._reads = {path: _identity(path) for path in reads}
        self._open: dict[Path, BinaryIO] = {}
        for path in paths:
            self._check(path)

    def require_space(self, n_bytes: int) -> None:
        """Raise OutputError if the disk has less free space than that."""
        folder = self.paths[0].parent
        with output_errors(folder):
            free = shutil.disk_usage(folder).free
        if free < n_bytes:
            message = f"{folder}: has {quantity(free, 'B')} free, and {quantity(n_bytes, 'B')} are to be written"
            raise OutputError(message, "free some space, or write to another disk")

    def __enter__(self) -> AtomicFiles:
        AtomicFiles.unfinished.add(self)
        return self

    def open(self, path: Path) -> BinaryIO:
        """Create the temporary file of one of the paths."""
        with output_errors(path):
            self._open[path] = file = open(self._temporary(path), "xb", buffering=1 << 20)  # noqa: SIM115
        return file

    def finish(self, path: Path) -> None:
        """Write one of the files to the disk and close it; does nothing if it is closed."""
        file = self._open[path]
        if file.closed:
            return
        with output_errors(path):
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def discard(self) -> None:
        """Close and remove the temporary files."""
        for path, file in self._open.items():
            with suppress(OSError):  # what is buffered may not fit on the disk
                file.close()
            with suppress(OSError):
                remove(self._temporary(path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self.discard()
            AtomicFiles.unfinished.discard(self)

    def _check(self, path: Path) -> None:
        with output_errors(path):
            self._check_is_not_read(path)
            if path.exists() and not path.is_file():
                raise OutputError(
                    f"{path}: is not an ordinary file, so it is not replaced", "give the path of a file to write"
                )
            if path.exists() and not self._overwrite:
                raise OutputError(f"{path}: already exists", ("--force replaces it", "give another path"))
            require_unused([path])
            if not path.parent.is_dir():
                raise OutputError(f"{path}: there is no folder {path.parent}", f"`mkdir -p {path.parent}` makes it")
            if not os.access(path.parent, os.W_OK):
                raise OutputError(f"{path.parent}: this folder cannot be written to", "write to another folder")

    def _check_is_not_read(self, path: Path) -> None:
        there = _identity(path)
        source = next((source for source, identity in self._reads.items() if there and identity == there), None)
        if source is not None:
            same = "" if path == source else f", which is {source}"
            raise OutputError(f"{path}: is read by this command{same}", "give another name to write to")

    def _commit(self) -> None:
        """Finish all files, then give each its own name."""
        for path in self._open:
            self.finish(path)
        for path in self._open:
            self._check(path)  # another process may have written it meanwhile
        for path in self._open:
            with output_errors(path):
                replace(self._temporary(path), path)
        for folder in {path.parent for path in self._open}:
            sync_folder(folder)

    def _temporary(self, path: Path) -> Path:
        return path.with_name(f"{path.name}.part-{os.getpid()}")


def _identity(path: Path) -> tuple[int, int] | None:
    """Of a file that is there, what all its names have in common: paths in any spelling, links of both kinds."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return None
    return found.st_dev, found.st_ino


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError about this path."""
    try:
        yield
    except OSError as problem:
        why = reason(problem, "check the disk and the folder's permissions", path)
        raise OutputError(f"{path}: cannot be written: {why.said}", why.hint) from None


def sync_folder(folder: Path) -> None:
    """Write the new names to the disk too; not every system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
