"""Texts that come from files and from standard input: decoded, however a person's system writes them."""

from __future__ import annotations

import codecs
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcli import console
from qcli.errors import ModelNotFoundError, QcliError, UsageError
from qcli.host.folders import expanded
from qcli.wording import shortened

STDIN = "-"  # in place of a text or of its file
MAX_STDIN = 64 << 20  # bytes, far beyond any context
MAX_FILE = 1 << 30  # bytes
PATIENCE = 1.0  # seconds without an end of standard input before a word about it
_LONGEST_PATH = 1000  # characters of a path that a message repeats in full
_MARKS = (  # how a text says its encoding; that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decoded(data: bytes) -> str:
    """A text in UTF-8, or in what its byte order mark says, without the mark; what is no text becomes U+FFFD."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    return data[len(mark) :].decode(encoding, "replace")


def read_file(name: str) -> str:
    """The text of a file, of a pipe that has a name, as in `-f <(command)`, or for "-" of standard input.

    Raises ModelNotFoundError, UsageError, QcliError.
    """
    if name == STDIN:
        return read_stdin("the text")
    if not name:
        raise UsageError("the name of a file is empty", "give the path of a text file")
    path = expanded(name)
    try:
        if path.is_fifo():
            return _read_pipe(path)
        if not path.is_file():
            raise ModelNotFoundError(f"{name}: {_why_not(name, path)}", "give the path of a text file")
        if path.stat().st_size > MAX_FILE:
            raise UsageError(f"{path}: is larger than {MAX_FILE >> 30} GiB", "give a part of it")
        return decoded(path.read_bytes())
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        named = path if len(str(path)) < _LONGEST_PATH else shortened(str(path))
        raise QcliError(f"{named}: cannot be read: {reason}", "check its name and its permissions") from None


def read_stdin(what: str, quiet: bool = False) -> str:
    """All of standard input; `what` it is waited for, to tell a person after a while. Raises UsageError."""
    if sys.stdin is None:
        return ""
    with _told_after_a_while(f"waiting for the end of standard input, for {what}: Ctrl-D ends it", quiet):
        data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        raise UsageError(f"more than {MAX_STDIN >> 20} MiB on standard input", "pipe in a part of it")
    return decoded(data)


def _read_pipe(path: Path) -> str:
    waiting = f"waiting for the end of {path}: Ctrl-C stops that"
    with _told_after_a_while(waiting, quiet=False), open(path, "rb") as pipe:
        data = pipe.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        raise UsageError(f"{path}: more than {MAX_STDIN >> 20} MiB come from this pipe", "give a part of it")
    return decoded(data)


def stdin_lines(longest: int) -> Iterator[str]:
    """The lines of standard input as they come, those that are too long in parts. Raises UsageError for UTF-16."""
    if sys.stdin is None:
        return
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    for i, line in enumerate(iter(lambda: sys.stdin.buffer.readline(longest), b"")):
        if not i and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UsageError(
                "standard input is UTF-16", "pipe in UTF-8; PowerShell: $OutputEncoding = [Text.Encoding]::UTF8"
            )
        yield decoder.decode(line)


def _why_not(name: str, path: Path) -> str:
    if "://" in name:
        return "is an address, not a file"
    return "is not a file" if path.exists() else "no such file"


@contextmanager
def _told_after_a_while(text: str, quiet: bool) -> Iterator[None]:
    timer = threading.Timer(PATIENCE, console.info, [text])
    timer.daemon = True
    if not quiet:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
