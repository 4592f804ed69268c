"""Text of models and files made fit for a terminal: no control code of it gets there."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from typing import Final, TextIO

_CONTROL = {c: "\ufffd" for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n"}
_SPACE_AND_WORD: Final = re.compile(r"(\s*)((?:`[^`]*`|[^\s`])+|`\S*)")
_CONTROL_IN_LINE = {**_CONTROL, ord("\t"): " ", ord("\n"): " "}


# Signs of our own -> as wide ones that every encoding has.
_PLAINER = str.maketrans("·•–—…─━╸▌│┃", "-*--.---|||")


def plainer(problem: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`: what stands for characters that a stream cannot encode, "?" unless they are signs."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    text = problem.object[problem.start : problem.end].translate(_PLAINER)
    return "".join(c if c.isascii() else "?" for c in text), problem.end


def clean(text: str) -> str:
    """Text from a file or a model as one line, control codes replaced by U+FFFD."""
    return text.translate(_CONTROL_IN_LINE)


def control_codes_shown(text: str) -> str:
    """A text with its line ends and tabs, control codes replaced by U+FFFD."""
    return text.translate(_CONTROL)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal that is said to understand cursor codes; a closed stream is none."""
    return is_any_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_any_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal, be it a dumb one: a person is there, and it may obey codes all the same."""
    return stream is not None and stream.isatty()


def destination(stream: TextIO) -> object:
    """Where a stream goes: the same for two that go to one terminal, one pipe or one file, as after 2>&1."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return id(stream)
    return found.st_dev, found.st_ino


def columns(stream: TextIO) -> int:
    """Characters in a line of a terminal as it is now; 80 if it does not know."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def wrapped(text: str, columns: float) -> str:
    """A text with its lines broken at spaces, where they are wider than a terminal; what stands in `…` is not broken."""
    if columns == math.inf or all(_cells(line) <= columns for line in text.split("\n")):
        return text
    return "\n".join(part for line in text.split("\n") for part in _parts(line, columns))


def _parts(line: str, columns: float) -> Iterator[str]:
    part = ""
    for space, word in _SPACE_AND_WORD.findall(line):
        if part.strip() and _cells(part + space + word) > columns:
            yield part
            space = part = ""
        part += space + word
    yield part


def _cells(text: str) -> int:
    """How many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    return max(wcswidth(text), len(text) if wcswidth(text) < 0 else 0)


class Filter:
    """Replaces control codes in a text that comes in pieces by U+FFFD; a line that ends in \\r\\n ends in \\n."""

    def __init__(self) -> None:
        self._held = ""  # a carriage return, until it is known what follows

    def __call__(self, piece: str) -> str:
        """What to show of a piece."""
        text = (self._held + piece).replace("\r\n", "\n")
        self._held = "\r" if text.endswith("\r") else ""
        return text.removesuffix("\r").translate(_CONTROL)
