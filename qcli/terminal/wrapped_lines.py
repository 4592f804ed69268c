"""Words put on the lines of a terminal, each as soon as it is known where it stands; none is moved later."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style

from qcli.terminal.text import control_codes_shown

_SPACE_OR_WORD = re.compile(r"\n|[^\S\n]+|\S+")


class Painter:
    """Turns a text and its style into what a terminal shows; control codes in the text are replaced by U+FFFD."""

    def __init__(self, colors: ColorSystem, no_color: bool) -> None:
        self._colors, self._no_color = colors, no_color

    def __call__(self, text: str, style: Style) -> str:
        """The text between the codes that begin and end its style."""
        if self._no_color:
            style = style.without_color
        return style.render(control_codes_shown(text), color_system=self._colors)

    def segments(self, segments: Iterable[Segment]) -> str:
        """What a terminal is sent for what Rich has drawn of a line."""
        return "".join(self(text, style or Style.null()) for text, style, control in segments if not control)


class Lines:
    """Wraps one paragraph as Rich does: at spaces, by the cells that a terminal gives each character."""

    def __init__(self, begin: Callable[[], tuple[str, int]], paint: Painter) -> None:
        self._begin, self._paint = begin, paint  # `begin` gives what a line starts with, and the cells left for text
        self._width = 0
        self._column: int | None = None  # None before the first line
        self._spaces: list[tuple[str, Style]] = []
        self._word: list[tuple[str, Style]] = []  # that has no place yet
        self._in_word = False  # whether the line ends in a part of it

    def add(self, text: str, style: Style) -> Iterator[str]:
        """Take a text; what can be written now."""
        for part in _SPACE_OR_WORD.findall(text):
            if not part.isspace():
                self._word.append((part, style))
                continue
            yield from self.end_word()
            if part == "\n":
                yield from self._next_line()
            elif self._column:
                self._spaces.append((part.expandtabs(1), style))

    def end_word(self) -> Iterator[str]:
        """Place the word that has come so far: on this line if it fits, else on the next."""
        yield from self.place()
        if self._word:
            yield from self._write_spaces()
            yield from self._folded()
        self._in_word = False

    def place(self) -> Iterator[str]:
        """Write as much of the unfinished word as has its place, whatever follows."""
        if not self._word:
            return
        if self._column is None:
            yield from self._next_line()
        if not self._in_word and self._column:
            needed = sum(cell_len(text) for text, _ in (*self._spaces, *self._word))
            if needed <= self._width - self._column:
                return
            yield from self._next_line()
        yield from self._folded()

    def close(self) -> Iterator[str]:
        """The end of the paragraph, and of its last line."""
        yield from self.end_word()
        if self._column is not None:
            yield "\n"

    def _next_line(self) -> Iterator[str]:
        if self._column is not None:
            yield "\n"
        start, self._width = self._begin()
        self._column, self._spaces = 0, []
        yield start

    def _write_spaces(self) -> Iterator[str]:
        for text, style in self._spaces:
            self._column = (self._column or 0) + len(text)
            yield self._paint(text, style)
        self._spaces = []

    def _folded(self) -> Iterator[str]:
        """Write the word from here on, on as many lines as it takes."""
        for text, style in self._word:
            rest = text
            while rest:
                fitting = _fitting(rest, self._width - (self._column or 0), bool(self._column))
                if not fitting:
                    yield from self._next_line()
                    continue
                self._column = (self._column or 0) + cell_len(fitting)
                yield self._paint(fitting, style)
                rest = rest[len(fitting) :]
        self._word, self._in_word = [], True


def _fitting(text: str, cells: int, may_be_none: bool) -> str:
    """The longest beginning of a text that fits into so many cells; at least one character unless there may be none."""
    if cell_len(text) <= cells:
        return text
    end, used = 0, 0
    for character in clusters(text):
        used += cell_len(character)
        if used > cells and (end or may_be_none):
            break
        end += len(character)
    return text[:end]


def clusters(text: str) -> Iterator[str]:
    """The characters as they are seen: each with the marks that belong to it, joined emoji as one."""
    cluster = ""
    for character in text:
        if cluster and not (cluster[-1] == "\u200d" or _width(character) == 0):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


@lru_cache(4096)
def _width(character: str) -> int:
    return cell_len(character)
