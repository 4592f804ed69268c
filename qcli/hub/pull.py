"""A model's files from the hub to this machine: what is missing is fetched, checked, and only then given its name."""

from __future__ import annotations

import errno
import hashlib
import mmap
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qcli.errors import ModelFileError, OutputError, QcliError
from qcli.gguf.header import read_header
from qcli.host.atomic_files import output_errors
from qcli.hub import api
from qcli.hub.address import Address, is_safe
from qcli.hub.places import InCache, InFolder, Place, Wanted, locked
from qcli.hub.repo_files import RepoFile, Variant
from qcli.hub.transfer import Transfer
from qcli.hub.transfer_part import Part
from qcli.wording import counted, size

if TYPE_CHECKING:
    from qcli.catalog.entry import Entry

FETCHING: Final = "fetching"
CHECKING: Final = "checking"
WAITING: Final = "waiting for another download of it"
_SPARE = 64 << 20  # bytes that the disk keeps free
Told = Callable[[str, str, int, int], None]  # stage, file, bytes done, bytes in all


@dataclass(frozen=True)
class Pulled:
    """A model that is on this machine."""

    path: Path  # of the first file
    bytes: int
    fetched: int  # bytes that came now
    unverified: tuple[str, ...]  # files for which nobody told a checksum


@dataclass(frozen=True)
class _Item:
    """A file to have, and where to fetch it if it is not there."""

    wanted: Wanted
    source: api.Source | None


class Pull:
    """One model's way to this machine."""

    def __init__(
        self,
        listing: api.Listing,
        files: Sequence[RepoFile],
        *,
        folder: Path | None = None,
        revision: str | None = None,
        sha256: str | None = None,
        told: Told = lambda *_: None,
        remark: Callable[[str], None] = lambda _: None,
    ) -> None:
        """files: of the listing; sha256: of a single file, where it is known; told, remark: what a person may see.

        Raises OutputError for a folder that is not there.
        """
        self._listing, self._files = listing, files
        self._known = sha256 if len(files) == 1 else None
        self._told, self._remark = told, remark
        self._place: Place = InFolder(folder) if folder else InCache(listing.repo, listing.commit, revision)
        self._done = self._fetched = self._total = 0

    @classmethod
    def of(cls, listing: api.Listing, variant: Variant, address: Address, entry: Entry | None, **more: Any) -> Pull:
        """One of the models of a repository; entry: of models.toml, by which it was asked for; more: as above."""
        known = entry.sha256 if entry and variant.name == entry.file else None
        return cls(listing, variant.files, revision=address.revision, sha256=known or None, **more)

    def run(self) -> Pulled:
        """Have the files here. Raises QcliError; what came by then is kept, and the next time goes on from there."""
        items = [self._item(file) for file in self._files]
        self._total = sum(item.wanted.bytes for item in items)
        missing = [item for item in items if item.source]
        self._require_space(missing)
        for item in items:
            if item.source:
                with locked(self._place.lock(item.wanted), lambda item=item: self._tell(WAITING, item.wanted, 0)):  # type: ignore[misc]
                    self._have(item.wanted, item.source)
            self._done += item.wanted.bytes
        wanted = [item.wanted for item in items]
        with output_errors(self._place.path(wanted[0])):
            self._place.publish(wanted)
        unverified = tuple(file.name for file in wanted if not file.sha256)
        return Pulled(self._place.path(wanted[0]), self._total, self._fetched, unverified)

    def _item(self, file: RepoFile) -> _Item:
        """What to have of a file, and its source unless it is here. Raises QcliError."""
        if not is_safe(file.name):
            raise QcliError(f"{file.name!r}: is no name for a file", "take another repository")
        if file.bytes and file.sha256:
            wanted = Wanted(file.name, file.bytes, file.sha256, file.sha256)
            if self._is_here(wanted):
                return _Item(wanted, None)
        self._told("asking", file.name, 0, 0)
        source = api.source_of(self._listing.repo, file.name, self._listing.commit)
        if file.bytes is not None and file.bytes != source.bytes:
            said = f"{file.name}: the server lists {file.bytes:,} bytes, and then tells {source.bytes:,}"
            raise QcliError(said, "try again later")
        sha256 = source.sha256 or file.sha256 or self._known
        if self._known not in (None, sha256):
            self._remark(
                f"{file.name}: was published anew since this version of qcli; it is checked by the new SHA-256"
            )
        etag = source.etag or sha256 or ""
        if not etag and isinstance(self._place, InCache):
            said = f"{file.name}: the server tells nothing by which it could be known again"
            raise QcliError(said, ("give --to FOLDER", "try again later"))
        wanted = Wanted(file.name, source.bytes, etag, sha256)
        return _Item(wanted, None if self._is_here(wanted) else source)

    def _is_here(self, file: Wanted) -> bool:
        """Whether a file is where it is to be. Raises OutputError if another is there."""
        if not self._place.has(file):
            return False
        if isinstance(self._place, InFolder) and file.sha256 and self._sha256(file) != file.sha256:
            path = self._place.path(file)
            raise OutputError(f"{path}: already exists, and is another file", "move it away, or give another folder")
        return True

    def _sha256(self, file: Wanted) -> str:
        path, checksum, done = self._place.path(file), hashlib.sha256(), 0
        with output_errors(path), open(path, "rb", buffering=0) as opened:
            while piece := opened.read(1 << 20):
                checksum.update(piece)
                done += len(piece)
                self._told(CHECKING, file.name, done, file.bytes)
        return checksum.hexdigest()

    def _require_space(self, missing: Sequence[_Item]) -> None:
        """Raise OutputError if the disk has no room for what is missing."""
        if not missing:
            return
        needed = sum(item.wanted.bytes - self._place.part(item.wanted).bytes_on_disk for item in missing)
        folder = next(above for above in (self._place.folder, *self._place.folder.parents) if above.is_dir())
        with output_errors(folder):
            free = shutil.disk_usage(folder).free
        if needed + _SPARE > free:
            said = f"{folder}: has {size(free)} free, and {size(needed)} are to be fetched"
            raise OutputError(said, ("free some space", "give a folder on another disk with --to"))

    def _have(self, file: Wanted, source: api.Source) -> None:
        """Fetch a file, check it, and take it in, unless another process just did."""
        if self._is_here(file):
            return
        part = self._place.part(file)
        with output_errors(part.path):
            part.path.parent.mkdir(parents=True, exist_ok=True)
            if part.look() | self._place.forget_others(file):
                self._remark(f"{file.name}: the source has another file than the one that was begun: it is begun anew")
        if part.bytes_there:
            self._remark(f"{file.name.rpartition('/')[2]}: goes on after {size(part.bytes_there)}")
        self._check(file, part, self._transfer(file, source, part))
        with output_errors(part.path):
            self._place.keep(file, part)

    def _transfer(self, file: Wanted, source: api.Source, part: Part) -> str:
        """The SHA-256 of what has come. Raises QcliError."""

        def progress(there: int, checked: int) -> None:
            if there < file.bytes:
                self._tell(FETCHING, file, there)
            else:
                self._told(CHECKING, file.name, checked, file.bytes)

        with output_errors(part.path):
            try:
                result = Transfer(file.name, source, part, progress=progress).run()
            except OSError as problem:
                if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                missing = size(part.bytes - part.bytes_there)
                raise OutputError(
                    f"{part.path.parent}: the disk is full",
                    f"free {missing}, and type the same again: it goes on from here",
                ) from None
        self._fetched += result.fetched
        return result.sha256

    def _check(self, file: Wanted, part: Part, sha256: str) -> None:
        """Raise QcliError for a file that is not what it should be; nothing of it is kept then."""
        problem = ""
        if file.sha256 and sha256 != file.sha256:
            problem = f"its SHA-256 is {sha256[:12]}…, and should be {file.sha256[:12]}…"
        elif not file.sha256:
            problem = _header_problem(part.path)
        if problem:
            with suppress(OSError):
                part.discard()
            hint = "nothing of it is kept: type the same again, and if it comes wrong again, try another network"
            raise QcliError(f"{file.name}: what came is not the file that it should be: {problem}", hint)

    def _tell(self, stage: str, file: Wanted, done: int) -> None:
        self._told(stage, file.name, self._done + done, self._total)


def summary(pulled: Pulled) -> str:
    """What was done, in a line."""
    if not pulled.fetched:
        return f"already here: {size(pulled.bytes)}"
    checked = "checked by SHA-256"
    if pulled.unverified:
        files = counted(len(pulled.unverified), "file")
        checked = f"not verified: the server tells no SHA-256 of {files}; length and header are right"
    return f"{size(pulled.fetched)} fetched, {checked}"


def _header_problem(path: Path) -> str:
    """What is wrong with the header of a file; "" if nothing is."""
    try:
        with open(path, "rb") as file:
            read_header(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), path)
    except ModelFileError as problem:
        return problem.message.removeprefix(f"{path}: ")
    except (ValueError, OSError) as problem:
        return str(problem)
    return ""
