"""Text of models and files made fit for a terminal: no control code of it gets there, and nothing that turns a line around."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from typing import Final, TextIO

_REPLACEMENT: Final = "\ufffd"
_CONTROL = {c: _REPLACEMENT for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n"}
# What has no shape of its own but changes, or hides, what is beside it: soft hyphen, directions (Unicode's TR9), borders of
# lines, zero-width spaces, tags. Not the joiners U+200C and U+200D, which emoji and Persian words consist of.
_FORMAT = dict.fromkeys(
    (
        *(0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF),
        *(*range(0xFFF9, 0xFFFC), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE0080)),
    ),
    _REPLACEMENT,
)
_OVERRIDES = dict.fromkeys(
    (0x202D, 0x202E), _REPLACEMENT
)  # that no language is written with; an answer may need the others
_SPACE_AND_WORD: Final = re.compile(r"(\s*)((?:`[^`]*`|[^\s`])+|`\S*)")
_IN_LINES = {**_CONTROL, **_FORMAT}
_IN_LINE = {**_IN_LINES, ord("\t"): " ", ord("\n"): " "}
_IN_TEXT = {**_CONTROL, **_OVERRIDES}
_IN_JSON = {c: json.dumps(chr(c))[1:-1] for c in (*range(127, 160), *_FORMAT)}


# Signs of our own -> as wide ones that every encoding has.
_PLAINER = str.maketrans("·•–—…─━╸▌│┃", "-*--.---|||")


def plainer(problem: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`: what stands for characters that a stream cannot encode, "?" unless they are signs."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    text = problem.object[problem.start : problem.end].translate(_PLAINER)
    return "".join(c if c.isascii() else "?" for c in text), problem.end


def clean(text: str) -> str:
    """A name, a title or a value from a file or a model as one line, control and format characters replaced by U+FFFD."""
    return text.translate(_IN_LINE)


def clean_lines(text: str) -> str:
    """As `clean`, but with its tabs and line ends; `\\r\\n` becomes `\\n`."""
    return text.replace("\r\n", "\n").translate(_IN_LINES)


def clean_json(text: str) -> str:
    """JSON of the same value, in which control and format characters are escapes."""
    return text.translate(_IN_JSON)


def control_codes_shown(text: str) -> str:
    """What a model or a person wrote, with its line ends and tabs; control codes and overrides of direction become U+FFFD."""
    return text.translate(_IN_TEXT)


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
    """`control_codes_shown` for a text that comes in pieces; a line that ends in \\r\\n ends in \\n."""

    def __init__(self) -> None:
        self._held = ""  # a carriage return, until it is known what follows

    def __call__(self, piece: str) -> str:
        """What to show of a piece."""
        text = (self._held + piece).replace("\r\n", "\n")
        self._held = "\r" if text.endswith("\r") else ""
        return control_codes_shown(text.removesuffix("\r"))
