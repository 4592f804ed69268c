"""Files that are whole or not there: written beside what they are to become, and renamed when all is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, ClassVar

from qcli.errors import OutputError
from qcli.wording import quantity


class Draft:
    """Output files in the making; a context manager. An error, or Ctrl-C, leaves nothing of them behind."""

    begun: ClassVar[set[Draft]] = set()  # in the making now, for who ends the program without an error

    def __init__(self, paths: list[Path], overwrite: bool = False) -> None:
        """Raises OutputError when a file is there that may not be overwritten, or has no folder to be in."""
        self.paths = paths
        self._overwrite = overwrite
        self._open: dict[Path, BinaryIO] = {}
        for path in paths:
            self._check(path)

    def need(self, n_bytes: int) -> None:
        """Have room for so many bytes, unless others take it meanwhile."""
        folder = self.paths[0].parent
        with output_errors(folder):
            free = shutil.disk_usage(folder).free
        if free < n_bytes:
            message = f"{folder}: has {quantity(free, 'B')} free, and {quantity(n_bytes, 'B')} are to be written"
            raise OutputError(message, "make room, or write to another disk")

    def open(self, path: Path) -> BinaryIO:
        """Begin one of the files."""
        with output_errors(path):
            self._open[path] = file = open(self._beside(path), "xb", buffering=1 << 20)  # noqa: SIM115
        return file

    def finish(self, path: Path) -> None:
        """Have one of the files on the disk, whole; doing so twice does no harm."""
        file = self._open[path]
        if file.closed:
            return
        with output_errors(path):
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def clear(self) -> None:
        """Remove what is not finished."""
        for path, file in self._open.items():
            with suppress(OSError):  # what is buffered may not fit on the disk
                file.close()
            with suppress(OSError):
                self._beside(path).unlink(missing_ok=True)

    def __enter__(self) -> Draft:
        Draft.begun.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._keep()
        finally:
            self.clear()
            Draft.begun.discard(self)

    def _check(self, path: Path) -> None:
        with output_errors(path):
            if path.exists() and not path.is_file():
                raise OutputError(f"{path}: is not a file that could be replaced", "give the path of a file to write")
            if path.exists() and not self._overwrite:
                raise OutputError(f"{path}: is there already", "--force replaces it, or give another path")
            if not path.parent.is_dir():
                raise OutputError(f"{path}: there is no folder {path.parent}", f"`mkdir -p {path.parent}` makes it")
            if not os.access(path.parent, os.W_OK):
                raise OutputError(f"{path.parent}: nothing can be written there", "write to another folder")

    def _keep(self) -> None:
        for path in self._open:
            self.finish(path)
        for path in self._open:
            self._check(path)  # somebody else may have written it meanwhile
        for path in self._open:
            with output_errors(path):
                os.replace(self._beside(path), path)
        for folder in {path.parent for path in self._open}:
            _sync_folder(folder)

    def _beside(self, path: Path) -> Path:
        return path.with_name(f"{path.name}.part-{os.getpid()}")


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Tell an operating system's complaint as one about this file."""
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise OutputError(
            f"{path}: cannot be written: {reason}", "check the disk and the folder's permissions"
        ) from None


def _sync_folder(folder: Path) -> None:
    """Have the new names on the disk too; not every system lets a folder be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
