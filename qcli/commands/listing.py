"""Lists in a chat: what can be typed and what it does, side by side where the terminal has room, else one below the other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from qcli import console

_WIDEST = 100  # columns, however wide a terminal is
_LEAST = 24  # columns for what stands on the right


def tell(rows: Sequence[tuple[str, str]]) -> None:
    """Write rows of two texts to stderr, wrapped at words; into a pipe each as one line."""
    columns = console.stderr_columns()
    left = max(len(first) for first, _ in rows) + 2
    if columns > 10_000:
        lines = [f"{first:{left}}{second}".rstrip() for first, second in rows]
    else:
        lines = [line for row in rows for line in _wrapped(*row, left, int(min(columns - 1, _WIDEST)))]
    console.info("\n".join(lines))


def _wrapped(first: str, second: str, left: int, columns: int) -> list[str]:
    if columns - left >= _LEAST:
        begin, indent = f"{first:{left}}", " " * left
        return textwrap.wrap(second, columns, initial_indent=begin, subsequent_indent=indent) or [begin.rstrip()]
    return [first, *textwrap.wrap(second, max(columns, 12), initial_indent="    ", subsequent_indent="    ")]
