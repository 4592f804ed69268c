"""Markdown as qcli shows it, and as Rich does, for a terminal of some width."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

from rich.console import Console
from rich.markdown import Markdown

from qcli.terminal.inline_markdown import parser
from qcli.terminal.markdown import MarkdownWriter

STYLE = re.compile(r"\x1b\[[\d;]*m")
FRAME = re.compile(r"(── \S+ )?─+$")


def sent(pieces: Iterable[str], columns: int = 80, no_color: bool = False) -> str:
    """What a terminal is sent for a text that comes in pieces."""
    written: list[str] = []
    writer = MarkdownWriter(written.append, lambda: columns, no_color)
    for piece in pieces:
        writer(piece)
    writer.close()
    return "".join(written)


def screen(text: str, columns: int = 80) -> str:
    """What stands on the screen, without styles and the spaces that end lines."""
    return "\n".join(line.rstrip() for line in STYLE.sub("", sent([text], columns)).split("\n"))


def by_rich(text: str, columns: int) -> str:
    """What Rich shows of the whole; HTML stays text."""
    drawn = io.StringIO()
    markdown = Markdown("", hyperlinks=False)
    markdown.parsed = parser().parse(text)
    Console(file=drawn, width=columns, color_system=None, legacy_windows=False).print(markdown)
    return drawn.getvalue()


def lines(shown: str) -> list[str]:
    """The lines that hold text: without blank ones, and those above and below code and headers of tables."""
    bare = (FRAME.sub("", line.rstrip()) for line in shown.split("\n"))
    return [line.rstrip() for line in bare if line.strip(" ▌")]
