"""Text of models and files made fit for a terminal: no control code of it gets there."""

from __future__ import annotations

import os
from typing import TextIO

_CONTROL = {c: "\ufffd" for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n"}
_CONTROL_IN_LINE = {**_CONTROL, ord("\t"): " ", ord("\n"): " "}


def clean(text: str) -> str:
    """Text from a file or a model as one line, control codes replaced by U+FFFD."""
    return text.translate(_CONTROL_IN_LINE)


def control_codes_shown(text: str) -> str:
    """A text with its line ends and tabs, control codes replaced by U+FFFD."""
    return text.translate(_CONTROL)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal that understands cursor codes; a closed stream is none."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


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


class Filter:
    """Replaces control codes in a text that comes in pieces by U+FFFD; a line that ends in \\r\\n ends in \\n."""

    def __init__(self) -> None:
        self._held = ""  # a carriage return, until it is known what follows

    def __call__(self, piece: str) -> str:
        """What to show of a piece."""
        text = (self._held + piece).replace("\r\n", "\n")
        self._held = "\r" if text.endswith("\r") else ""
        return text.removesuffix("\r").translate(_CONTROL)
