"""Tables as every command draws them: no lines, dim headings, two spaces between columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qcli import console

if TYPE_CHECKING:
    from rich.table import Table


def new_table() -> Table:
    """A table that has no columns yet."""
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Names, dim, and their values; a name without a value is left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(Text(console.clean(name)), Text(console.clean(value)))
    return table
