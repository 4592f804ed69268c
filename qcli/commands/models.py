"""qcli models: the models known by name, and which of them are on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from qcli import console
from qcli.commands import options
from qcli.wording import size

if TYPE_CHECKING:
    from rich.text import Text

    from qcli.catalog import Entry


def models(as_json: options.Json = False) -> None:
    """List the models known by name."""
    from qcli.catalog import load_catalog

    entries = list(load_catalog().values())
    if as_json:
        console.json([_as_dict(entry) for entry in entries])
    else:
        console.table(_listed(entries))


def _as_dict(entry: Entry) -> dict[str, object]:
    fields = {key: value for key, value in asdict(entry).items() if value and key not in ("asset", "named")}
    return fields | {"where": entry.where, "path": str(entry.path) if entry.path else None}


def _listed(entries: list[Entry]) -> Text:
    from rich.text import Text

    width = max(len(entry.name) for entry in entries)
    blocks = []
    for entry in entries:
        facts = f"{'':{width - len(entry.name)}}  {size(entry.bytes):>7}  {entry.where}\n"
        rest = f"  {entry.description}\n  {_sampling(entry)}"
        blocks.append(Text.assemble((entry.name, "bold"), facts, (rest, "dim")))
    return Text("\n\n").join(blocks)


def _sampling(entry: Entry) -> str:
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in entry.sampling.items())
