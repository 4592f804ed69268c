"""Where a download goes: into the cache that huggingface_hub's tools share, or into a folder of the user's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from qcli.errors import OutputError
from qcli.host.atomic_files import output_errors, sync_folder
from qcli.hub.cache import CachedRepo
from qcli.hub.transfer_part import Part, begun
from quant.renaming import remove

_NOTICE = 0.5  # seconds until it is told that another download is waited for


@dataclass(frozen=True)
class Wanted:
    """A file to have: its name in the repository, bytes, what tells its content from another, and its SHA-256 if known."""

    name: str
    bytes: int
    etag: str  # that of the hub for a large file is its SHA-256
    sha256: str | None


class Place(Protocol):
    """Where files come to be."""

    folder: Path  # that exists, or can be made

    def has(self, file: Wanted) -> bool:
        """Whether the whole file is there, published or not."""

    def path(self, file: Wanted) -> Path:
        """What it is opened by, once it is published."""

    def part(self, file: Wanted) -> Part:
        """Where it is while it comes."""

    def lock(self, file: Wanted) -> Path:
        """The file that is locked meanwhile."""

    def forget_others(self, file: Wanted) -> bool:
        """Delete what was begun of the file when it had another content; whether there was any."""

    def keep(self, file: Wanted, part: Part) -> None:
        """Take in a file that has come and was checked. Raises OSError."""

    def publish(self, files: Sequence[Wanted]) -> None:
        """Let others see files that have all been taken in. Raises OutputError, OSError."""


class InCache:
    """The cache: contents as they come, links to them when all have."""

    def __init__(self, repo: str, commit: str, revision: str | None) -> None:
        self._repo = CachedRepo(repo, commit)
        self._revision = revision or "main"
        self.folder = self._repo.hub

    def has(self, file: Wanted) -> bool:
        """By its length: what is there under the name of its content was checked by whoever put it there."""
        return _length(self.path(file)) == file.bytes or _length(self._repo.blob(file.etag)) == file.bytes

    def path(self, file: Wanted) -> Path:
        """Its link in the snapshot."""
        return self._repo.path(file.name)

    def part(self, file: Wanted) -> Part:
        """Beside the contents."""
        return Part(self._repo.blob(file.etag), file.bytes, file.etag, file.name)

    def lock(self, file: Wanted) -> Path:
        """The one that huggingface_hub locks, too."""
        return self._repo.lock(file.etag)

    def forget_others(self, file: Wanted) -> bool:
        """Each content has files of its own; those that another process is at are left alone."""
        found = False
        for other in begun(self._repo.blob("x").parent):
            if other.name == file.name and other.etag != file.etag:
                with suppress(TimeoutError, OutputError), locked(self._repo.lock(other.etag), leave_it):
                    Part(other.stem, 1, other.etag).discard()
                    found = True
        return found

    def keep(self, file: Wanted, part: Part) -> None:
        """Under the name of its content."""
        part.move(self._repo.blob(file.etag))

    def publish(self, files: Sequence[Wanted]) -> None:
        """The first file last: a model is opened by it."""
        for file in reversed(files):
            if _length(self.path(file)) != file.bytes:
                self._repo.link(file.name, file.etag)
        self._repo.set_ref(self._revision)


class InFolder:
    """A folder, into which the files go by the last part of their names, and over no other."""

    def __init__(self, folder: Path) -> None:
        """Raises OutputError if it is not there, or nothing can be written to it."""
        if folder.is_file():
            raise OutputError(f"{folder}: is a file, not a folder", f"give its folder: {folder.parent}")
        if not folder.is_dir():
            raise OutputError(f"{folder}: there is no such folder", f"`mkdir -p {folder}` makes it")
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{folder}: this folder cannot be written to", "give another folder")
        self.folder = folder

    def has(self, file: Wanted) -> bool:
        """By its length; the caller compares the content. Raises OutputError if something else has its name."""
        path = self.path(file)
        if os.path.lexists(path) and _length(path) != file.bytes:
            raise OutputError(f"{path}: already exists, and is another file", "move it away, or give another folder")
        return path.is_file()

    def path(self, file: Wanted) -> Path:
        """In the folder itself."""
        return self.folder / file.name.rpartition("/")[2]

    def part(self, file: Wanted) -> Part:
        """A hidden file in the folder."""
        return Part(self._hidden(file), file.bytes, file.etag, file.name)

    def lock(self, file: Wanted) -> Path:
        """A hidden file in the folder, gone when all is there."""
        return self._hidden(file).with_name(self._hidden(file).name + ".qcli.lock")

    def forget_others(self, file: Wanted) -> bool:
        """All contents come by the same hidden file: it is looked at when it is opened."""
        return False

    def keep(self, file: Wanted, part: Part) -> None:
        """As it is, until all files have come."""

    def publish(self, files: Sequence[Wanted]) -> None:
        """The first file last: a model is opened by it."""
        for file in reversed(files):
            part, path = self.part(file), self.path(file)
            if part.path.exists():
                if os.path.lexists(path):  # made meanwhile
                    raise OutputError(f"{path}: already exists", "move it away, and type the same again")
                _rename(part.path, path)
                part.forget_marks()
            remove(self.lock(file))
        sync_folder(self.folder)

    def _hidden(self, file: Wanted) -> Path:
        return self.folder / f".{self.path(file).name}"


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Have a lock, which a process that is killed gives up, until the block ends; `waiting` is called if another has it.

    Raises OutputError.
    """
    from huggingface_hub.utils import WeakFileLock

    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        is_free = True
        with output_errors(path):
            try:
                stack.enter_context(WeakFileLock(path, timeout=_NOTICE))
            except TimeoutError:
                is_free = False
        if not is_free:
            waiting()
            with output_errors(path):
                stack.enter_context(WeakFileLock(path))
        yield


def leave_it() -> NoReturn:
    """For `locked`: not to wait. Raises TimeoutError."""
    raise TimeoutError


def _length(path: Path) -> int:
    """Bytes of a file; -1 if there is none."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


def _rename(path: Path, to: Path) -> None:
    """Give a file another name, over no other file. Raises OSError."""
    try:
        os.link(path, to)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without links
        os.rename(path, to)
    else:
        remove(path)
