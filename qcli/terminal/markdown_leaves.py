"""The two parts of a text in Markdown that are shown before they end: a paragraph, word by word, and code, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Console
from rich.style import Style
from rich.syntax import Syntax

from qcli.terminal.inline_markdown import Inline
from qcli.terminal.markdown_blocks import Fence, indentation
from qcli.terminal.wrapped_lines import Lines, Painter

_FRAME = Style(dim=True)
_THEME = "ansi_dark"  # the terminal's own colours


class Paragraph:
    """A paragraph as it comes."""

    def __init__(self, lines: Lines, style: Style) -> None:
        self._inline, self._lines, self._style = Inline(), lines, style

    def feed(self, text: str) -> Iterator[str]:
        """What can be written now that this text has come."""
        for shown, style in self._inline.feed(text.replace("\t", " ")):
            yield from self._lines.add(shown, self._style + style)
        yield from self._lines.end_word() if self._inline.between_words else self._lines.place()

    def close(self) -> Iterator[str]:
        """What is left."""
        for shown, style in self._inline.close():
            yield from self._lines.add(shown, self._style + style)
        yield from self._lines.close()


class Code:
    """Code as it comes, fenced or indented: each line when it is complete, with nothing at its sides."""

    def __init__(self, fence: Fence | None, depth: int, begin: Callable[[], tuple[str, int]], paint: Painter) -> None:
        self.fence, self.depth = fence, depth
        self._begin, self._paint = begin, paint
        self._syntax = Syntax("", "text", theme=_THEME)
        self._lexer = Syntax("", fence.language).lexer if fence and fence.language else None
        if self._lexer:
            self._syntax = Syntax("", self._lexer, theme=_THEME)
        self._console = Console()
        self._blank = 0  # lines that are shown if others follow

    def open(self) -> Iterator[str]:
        """The line above the code, with the name of its language."""
        language = f"── {self.fence.language} " if self.fence and self.fence.language else ""
        yield from self._frame(language)

    def takes(self, line: str) -> bool:
        """Whether a line belongs to the code."""
        if self.fence:
            return not self.fence.is_closed_by(line)
        return not line.strip() or indentation(line.expandtabs(4)) > 3

    def feed(self, line: str) -> Iterator[str]:
        """Show a line; one that is blank waits for the next."""
        if not line.strip():
            self._blank += 1
            return
        while self._blank:
            self._blank -= 1
            yield self._begin()[0] + "\n"
        line = line.expandtabs(4)
        indent = self.fence.indent if self.fence else 4
        yield self._begin()[0] + self._highlighted(line[min(indent, indentation(line)) :]) + "\n"

    def close(self) -> Iterator[str]:
        """The line below the code."""
        yield from self._frame("")

    def _frame(self, label: str) -> Iterator[str]:
        start, width = self._begin()
        yield start + self._paint(label[:width].ljust(width, "─"), _FRAME) + "\n"

    def _highlighted(self, line: str) -> str:
        if not self._lexer:
            return self._paint(line, Style.null())
        text = self._syntax.highlight(line)
        text.rstrip()
        return self._paint.segments(text.render(self._console))
