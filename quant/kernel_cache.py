"""The kernel cache: machine code on disk, a file a kernel, named by a hash of its sources, in a folder for the processor.

An application says where (`configure`); without that, nothing is kept and each process compiles for itself.
What came with the package (`quant.prebuilt`) is found as well. A file holds a checksum, the symbol's name, and an object file.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from quant import cpu, prebuilt, sources
from quant.declarations import CFunction
from quant.renaming import PART, keep_first, remove_parts

_UNUSED_DAYS = 30
_CHECKSUM_BYTES = 32

_candidates: tuple[Callable[[], Path], ...] = ()
_hint = ""


def configure(*candidates: Callable[[], Path], hint: str = "") -> None:
    """Keep machine code below the first of these folders that can be written to; each is asked for when one is needed.

    What is below those before it is found, too: a folder may have come filled, and read-only.

    hint: what a user can do if nothing can be written there; it ends the warning.
    """
    global _candidates, _hint
    _candidates, _hint = candidates, hint
    _roots.cache_clear()


def root() -> Path | None:
    """The application's folder that is written to, else the first that it names; None if none."""
    return next(iter(_roots()), None)


@cache
def _roots() -> tuple[Path, ...]:
    """The application's folders that are used: the first that can be written to, then those that it names before that."""
    named: list[Path] = []
    for candidate in _candidates:
        with suppress(OSError):
            named.append(candidate())
            place = named[-1] / _subfolder()
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK):
                return named[-1], *named[:-1]
    return tuple(named)


def folder() -> Path | None:
    """The folder for code of this compiler and this processor."""
    chosen = root()
    return chosen and chosen / _subfolder()


@cache
def _subfolder() -> Path:
    tools = f"{version('numba')} {version('llvmlite')} {sys.version_info[:2]}"
    return Path("kernels") / hashlib.sha256(f"{tools} {cpu.name()} {cpu.features()}".encode()).hexdigest()[:16]


def has(function: CFunction) -> bool:
    """Whether there is a file of a function's code."""
    return any(path.exists() for path in _paths(function))


def is_writable() -> bool:
    """Whether code can be kept."""
    place = folder()
    return place is not None and os.access(place, os.W_OK)


def read(function: CFunction) -> tuple[str, bytes] | None:
    """A function's symbol and object file, if they are there and whole."""
    content = next((content for path in _paths(function) if (content := _content(path)) is not None), None)
    if content is None:
        return None
    symbol, _, object_file = content.partition(b"\0")
    return symbol.decode(), object_file


def kept() -> list[Path]:
    """The files of code for this compiler and this processor, also of older sources. Raises OSError."""
    place = folder()
    return sorted(place.glob("*.o")) if place else []


def is_whole(path: Path) -> bool:
    """Whether a file of code is as it was written."""
    return _content(path) is not None


def save(function: CFunction, symbol: str, object_file: bytes) -> None:
    """Keep a function's code: written beside, then renamed. A full disk costs the next start its time, and a warning."""
    path = _path(function)
    if path is None:
        return
    written = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=PART, delete=False) as file:
            written = Path(file.name)
            file.write(packed(symbol, object_file))
        keep_first(written, path)
    except OSError as problem:
        if written:
            with suppress(OSError):
                written.unlink()
        _warn(path.parent, problem.strerror or str(problem))
    remove_parts(path.parent)
    _remove_unused(path, function.name)


def packed(symbol: str, object_file: bytes) -> bytes:
    """What a file of code consists of."""
    content = symbol.encode() + b"\0" + object_file
    return hashlib.sha256(content).digest() + content


def name_of(function: CFunction) -> str:
    """The name of the file of a function's code."""
    return f"{function.name}-{sources.digest(function.module)}.o"


def _content(path: Path) -> bytes | None:
    """What follows a file's checksum, if it is there and whole."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        data = path.read_bytes()
    except OSError:
        return None
    content = data[_CHECKSUM_BYTES:]
    return content if hashlib.sha256(content).digest() == data[:_CHECKSUM_BYTES] else None


def _path(function: CFunction) -> Path | None:
    place = folder()
    return place and place / name_of(function)


def _paths(function: CFunction) -> Iterator[Path]:
    """Where a function's code may be: kept, or come with the package."""
    name = name_of(function)
    read_only = (root / _subfolder() for root in _roots()[1:])
    yield from (place / name for place in (folder(), *read_only, prebuilt.folder()) if place)


@cache
def _warn(place: Path, reason: str) -> None:
    """Once a folder, however many kernels could not be kept there."""
    message = f"{place}: machine code cannot be kept there ({reason}), so that every start compiles anew"
    warnings.warn(f"{message}; {_hint}" if _hint else message, RuntimeWarning, stacklevel=2)


def _remove_unused(path: Path, name: str) -> None:
    """Delete a function's code for other sources, if it is older than a month."""
    oldest = time.time() - _UNUSED_DAYS * 86_400
    for other in path.parent.glob(f"{name}-*.o"):
        with suppress(OSError):  # deleted meanwhile, or on Windows being read
            if other != path and other.stat().st_mtime < oldest:
                other.unlink()
