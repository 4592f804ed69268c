"""Headers of model files that are not on this machine, by HTTP range requests: a few megabytes instead of the whole file.

A header is written to a sparse file of the full length, which takes no space beyond it on most disks.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from qcli.catalog.names import address_of, named
from qcli.catalog.resolve import name_of, resolve
from qcli.errors import ModelFileError, ModelNotFoundError, QcliError
from qcli.gguf.header import MAX_HEADER, read_header
from qcli.host.temporary import temporary_folder
from qcli.hub import api
from qcli.hub.cache import hub_cache
from qcli.hub.connection import Client, RefusedError, TransientError, patiently
from qcli.hub.quant_names import plain
from qcli.hub.repo_files import MAX_BYTES, Variant, choose
from qcli.hub.sites import shown
from qcli.progress import Progress

_FIRST = 1 << 20  # bytes of the first request; each further one doubles what there is
_SCRATCH = 256 << 20  # bytes of a file that is read to measure the disk
_FINITE = bytes(i % 16 for i in range(256))  # maps random bytes to ones which are finite as weights of any type
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


@dataclass(frozen=True)
class Found:
    """A model's file, or a sparse file with its header alone."""

    name: str
    path: Path
    disk: Path | None = None  # beside a header alone: a file to read, to measure the disk where the model would be


@contextmanager
def header_of(model: str | None, progress: Progress | None = None) -> Iterator[Found]:
    """The file of a model if it is on this machine, else its header, until the block ends.

    model: as in `resolve`. Raises ModelNotFoundError, ModelFileError, UsageError, QcliError.
    """
    if found := _here(model):
        yield found
        return
    assert model is not None  # the embedded model is here
    entry, address = named(model), address_of(model)
    assert address is not None
    there = api.list_files(address.repo, address.revision)
    variant = choose(there.files, address)
    asked = address.file or (address.quant and plain(address.quant) == plain(variant.quant))
    name = entry.name if entry else model if asked else there.repo
    with header_in(there, variant, progress) as path:
        yield Found(name if asked else f"{name}:{variant.quant or variant.name}", path, scratch(path.parent))


@contextmanager
def header_in(there: api.Listing, variant: Variant, progress: Progress | None = None) -> Iterator[Path]:
    """The header of one of a repository's models, in a folder that is gone after the block. Raises as `header_of`."""
    with temporary_folder(_nearest(hub_cache())) as folder:
        yield _headers(there, variant, folder, progress)


def _here(model: str | None) -> Found | None:
    """The file of a model, if it is on this machine; None if it is on huggingface.co. Raises ModelNotFoundError, UsageError."""
    try:
        path, entry = resolve(model)
    except ModelNotFoundError:
        if model is None or address_of(model) is None:
            raise
        return None
    return Found(name_of(path, entry), path)


def _headers(there: api.Listing, variant: Variant, folder: Path, progress: Progress | None) -> Path:
    """Fetch the header of a file, or of all parts of a split model, into a folder; returns the path of the first."""
    files = variant.files
    with closing(api.client()) as hub:
        for i, file in enumerate(files):
            if progress:
                progress("reading headers", i / len(files))
            url = f"{api.endpoint()}/{quote(there.repo)}/resolve/{there.commit}/{quote(file.name)}"
            _fetch(hub, url, folder / Path(file.name).name)
    return folder / Path(files[0].name).name


def _fetch(hub: Client, url: str, path: Path) -> None:
    """Fetch the header of a file into a sparse file of its length. Raises ModelFileError, QcliError."""
    done, size = 0, 1
    while done < min(size, MAX_HEADER):
        data, size = _range(hub, url, done, max(done, _FIRST))
        with open(path, "r+b" if done else "wb") as file:
            file.seek(done)
            file.write(data)
            file.truncate(size)
        done += len(data)
        if done >= 4 and not _is_gguf(path):
            raise ModelFileError(
                f"{shown(url)}: is not a GGUF model file", "give the name of a .gguf file of this repository"
            )
        if _header_complete(path, done, shown(url), last=done >= min(size, MAX_HEADER)):
            return


def _is_gguf(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"GGUF"


def _header_complete(path: Path, done: int, url: str, last: bool) -> bool:
    """Whether the first `done` bytes are enough for the header; if not, and they are the last, raises ModelFileError."""
    try:
        with open(path, "rb") as file:
            header = read_header(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), path)
    except ModelFileError as error:
        if last:
            raise type(error)(error.message.replace(str(path), url), error.hints) from None
        return False
    return last or min((row.offset for row in header.tensors), default=done + 1) <= done


def _range(hub: Client, url: str, first: int, count: int) -> tuple[bytes, int]:
    """At least one and at most `count` bytes of a file from `first` on, and the length of the file. Raises QcliError."""

    def ask() -> tuple[bytes, str]:
        answer = hub.ask(url, headers={"Range": f"bytes={first}-{first + count - 1}"})
        told = answer.headers.get("Content-Range", "")
        if answer.status != 206:
            return b"", ""
        room = bytearray(count)
        filled = 0
        while filled < count and (n := answer.readinto(memoryview(room)[filled:])):
            filled += n
        answer.finish()
        if not filled:
            raise TransientError("the answer is empty")
        return bytes(room[:filled]), told

    try:
        data, told = patiently(ask, shown(url), hub)
    except RefusedError as problem:
        raise api.refused(shown(url), problem) from None
    given = _RANGE.fullmatch(told)
    if not given or int(given[1]) != first or int(given[3]) > MAX_BYTES:
        raise QcliError(
            f"{shown(url)}: the server does not give parts of files", "download the file, and give its path"
        )
    return data, int(given[3])


def scratch(folder: Path) -> Path:
    """Write a file of random bytes into a folder, to measure its disk."""
    path, block = folder / "scratch", os.urandom(1 << 20).translate(_FINITE)
    with open(path, "wb") as file:
        for _ in range(_SCRATCH // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return path


def _nearest(folder: Path | None) -> Path | None:
    """The folder, or the nearest one above it that exists and can be written to; None for the system's own choice."""
    above = (folder, *folder.parents) if folder else ()
    return next((f for f in above if f.is_dir() and os.access(f, os.W_OK)), None)
