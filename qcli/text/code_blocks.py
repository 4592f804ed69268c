"""The blocks of code in a Markdown text."""

from __future__ import annotations

import re

_FENCE = re.compile(r"( *)(`{3,}|~{3,})([^\n]*)")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class CodeReader:
    """Takes a text line by line, and tells of each block of code what stands in it."""

    def __init__(self) -> None:
        self._indent, self._fence, self._opening = 0, "", ""
        self._lines: list[str] = []

    @property
    def inside(self) -> bool:
        """Whether the next line belongs to a block, or closes it."""
        return bool(self._fence)

    @property
    def opening(self) -> str:
        """The line that has opened the block that the next line belongs to; "" outside of blocks."""
        return self._opening if self._fence else ""

    def take(self, line: str) -> str | None:
        """Take a line with its end; the block that it closes, without its fences and as far to the left as they stand."""
        found = _FENCE.fullmatch(line.rstrip("\r\n"))
        if not self._fence:
            if found and not ("`" in found[2] and "`" in found[3]):
                self._indent, self._fence, self._opening, self._lines = len(found[1]), found[2], line, []
        elif found and found[2].startswith(self._fence) and not found[3].strip():
            self._fence = ""
            return "".join(self._lines)
        else:
            self._lines.append(line[min(self._indent, len(line) - len(line.lstrip(" "))) :])
        return None

    def rest(self) -> str | None:
        """What stands in a block that no line has closed."""
        return "".join(self._lines) if self._fence else None


def code_blocks(text: str) -> list[str]:
    """What stands in each block of code; the last one may be unclosed."""
    reader = CodeReader()
    found = [*map(reader.take, _LINE.findall(text)), reader.rest()]
    return [block for block in found if block is not None]


def opened(text: str) -> str:
    """The line that opens the block of code in whose midst a text ends; "" if it ends in none."""
    reader = CodeReader()
    for line in _LINE.findall(text):
        reader.take(line)
    return reader.opening


class FirstBlock:
    """Looks for the first block of code in a text that comes in pieces."""

    def __init__(self) -> None:
        self._reader = CodeReader()
        self._pending = ""  # of a line
        self.found: str | None = None  # once it is closed

    def push(self, piece: str) -> bool:
        """Take a piece; whether the block is whole."""
        *lines, self._pending = (self._pending + piece).split("\n")
        for line in lines:
            if self.found is None:
                self.found = self._reader.take(line + "\n")
        return self.found is not None

    def end(self) -> str | None:
        """The block, now that no more text comes: it may have no end of its own. None if there is none."""
        if self.found is None and self._pending:
            self.found = self._reader.take(self._pending)
        self._pending = ""
        return self._reader.rest() if self.found is None else self.found
