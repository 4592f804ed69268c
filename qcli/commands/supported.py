"""qcli show --supported: the architectures that qcli runs, and what was verified of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcli import console, models
from qcli.commands.tables import new_table

if TYPE_CHECKING:
    from rich.console import RenderableType


def supported(as_json: bool) -> None:
    """Print each architecture with what it is and what was compared with what."""
    rows = [(name, *models.verified(name)) for name in models.supported()]
    if as_json:
        console.json([{"architecture": name, "about": about, "verified": how} for name, about, how in rows])
    else:
        console.table(_drawn(rows))


def _drawn(rows: list[tuple[str, str, str]]) -> RenderableType:
    from rich.text import Text

    table = new_table()
    table.add_column("architecture", style="bold", no_wrap=True)
    table.add_column("what it is, and what was verified", max_width=100)
    for name, about, how in rows:
        table.add_row(name, Text.assemble(about, "\n", (f"verified: {how}", "dim")))
    return table
