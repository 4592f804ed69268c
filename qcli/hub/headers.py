"""Headers of model files that are not on this machine, by HTTP range requests: a few megabytes instead of the whole file.

A header is written to a sparse file of the full length, which takes no space beyond it on most disks. This is the only part
of qcli that opens a connection, and only when it is asked about a model that is not on this machine.
"""

from __future__ import annotations

import http.client
import mmap
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qcli import catalog
from qcli.errors import ModelFileError, ModelNotFoundError, QcliError, UsageError
from qcli.gguf.header import MAX_HEADER, read_header
from qcli.gguf.names import MAX_PARTS, count_parts, part_paths
from qcli.hub.cache import cached, hub_cache
from qcli.progress import Progress

_FIRST = 1 << 20  # bytes of the first request; each further one doubles what there is
_TIMEOUT = 30  # seconds without a byte
_SCRATCH = 256 << 20  # bytes of a file that is read to measure the disk
_MAX_FILE = 1 << 42  # bytes; no known model comes near
_FINITE = bytes(i % 16 for i in range(256))  # maps random bytes to ones which are finite as weights of any type
_REPO_FILE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[\w./-]+\.(?i:gguf))")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Found:
    """A model's file, or a sparse file with its header alone."""

    name: str
    path: Path
    disk: Path | None = None  # beside a header alone: a file to read, to measure the disk where the model would be


@contextmanager
def header_of(model: str | None, progress: Progress | None = None) -> Iterator[Found]:
    """The file of a model if it is on this machine, else its header, until the block ends.

    model: a path, a name or owner/repo:file. Raises ModelNotFoundError, ModelFileError, UsageError, QcliError.
    """
    remote = _REPO_FILE.fullmatch(model or "")
    entry = {name.lower(): entry for name, entry in catalog.load_catalog().items()}.get((model or "").lower())
    if remote and not Path(model or "").exists():
        name, repo, file = remote[0], remote["repo"], remote["file"]
    elif entry and entry.repo and not Path(entry.name).is_file():
        name, repo, file = entry.name, entry.repo, entry.file
    else:
        path, entry = catalog.resolve(model)
        yield Found(catalog.name_of(path, entry), path)
        return
    if local := cached(repo, file):
        yield Found(name, local)
        return
    with tempfile.TemporaryDirectory(prefix="qcli-", dir=_nearest(hub_cache())) as folder:
        yield Found(name, _headers(repo, file, Path(folder), progress), _scratch(Path(folder)))


def _headers(repo: str, file: str, folder: Path, progress: Progress | None) -> Path:
    """Fetch the header of a file, or of all parts of a split model, into a folder; returns the path of the first."""
    parts = _parts(file)
    for i, part in enumerate(parts):
        if progress:
            progress("reading headers", i / len(parts))
        _fetch(f"{_endpoint()}/{repo}/resolve/main/{urllib.parse.quote(part)}", folder / Path(part).name)
    return folder / Path(file).name


def _parts(file: str) -> list[str]:
    """The files of a split model, given the first."""
    count = count_parts(file)
    if count > MAX_PARTS:
        raise UsageError(f"{file}: a model of {count} parts", f"qcli reads {MAX_PARTS} at most")
    return [path.as_posix() for path in part_paths(Path(file), count)]


def _endpoint() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise QcliError("HF_HUB_OFFLINE is set, and this model is not on this machine", "give the path of a .gguf file")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not endpoint.startswith(("https://", "http://")):
        raise UsageError(
            f"HF_ENDPOINT is {endpoint!r}", "give it an address that begins with https://, or leave it out"
        )
    return endpoint.rstrip("/")


def _fetch(url: str, path: Path) -> None:
    """Fetch the header of a file into a sparse file of its length. Raises ModelFileError, QcliError."""
    done, size = 0, 1
    while done < min(size, MAX_HEADER):
        data, size = _range(url, done, max(done, _FIRST))
        with open(path, "r+b" if done else "wb") as file:
            file.seek(done)
            file.write(data)
            file.truncate(size)
        done += len(data)
        if done >= 4 and not _is_gguf(path):
            raise ModelFileError(f"{url}: is not a GGUF file", "give the name of a .gguf file of this repository")
        if _header_complete(path, done, url, last=done >= min(size, MAX_HEADER)):
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
            raise type(error)(error.message.replace(str(path), url), error.hint) from None
        return False
    return last or min((row.offset for row in header.tensors), default=done + 1) <= done


def _range(url: str, first: int, count: int) -> tuple[bytes, int]:
    """At least one and at most `count` bytes of a file from `first` on, and the length of the file. Raises QcliError."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={first}-{first + count - 1}", "User-Agent": "qcli"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            given = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            data: bytes = answer.read(count)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refused(url, error.code) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        hint = "check the connection, or give the path of a .gguf file that is here"
        raise QcliError(f"{url}: cannot be read: {reason}", hint) from None
    if not given or int(given[1]) != first or not data or int(given[3]) > _MAX_FILE:
        raise QcliError(f"{url}: the server does not give parts of files", "download the file, and give its path")
    return data, int(given[3])


def _refused(url: str, code: int) -> QcliError:
    if code in (401, 403):  # the hub says so of repositories that do not exist, too
        return ModelNotFoundError(
            f"{url}: there is no such repository, or it asks for a login", "`hf download` can log in"
        )
    if code == 404:
        return ModelNotFoundError(f"{url}: no such file", "check the names of the repository and of the file")
    return QcliError(f"{url}: the server answers {code}", "try again later")


def _scratch(folder: Path) -> Path:
    """Write a file of random bytes, to measure the disk."""
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
