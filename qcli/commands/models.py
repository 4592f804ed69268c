"""qcli models: the models known by name, and which of them are on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from qcli import console
from qcli.commands import options
from qcli.commands.examples import examples
from qcli.wording import size

if TYPE_CHECKING:
    from rich.text import Text

    from qcli.catalog import Entry


@examples(
    ("qcli models", "Lists them with sizes, and which are on this machine."),
    ("qcli models --json", "The same for a program."),
)
def models(as_json: options.Json = False) -> None:
    """List the models known by name.

    Your own stand in models.toml, in the folder that `qcli config` names: [NAME], and below it path = "FILE".
    """
    from qcli.catalog import load_catalog

    entries = list(load_catalog().values())
    if as_json:
        console.json([_as_dict(entry) for entry in entries])
    else:
        console.table(_listed(entries))


def _as_dict(entry: Entry) -> dict[str, object]:
    fields = {key: value for key, value in asdict(entry).items() if value and key not in ("asset", "named", "local")}
    return fields | {"where": entry.where, "path": str(entry.path) if entry.path else None}


def _listed(entries: list[Entry]) -> Text:
    from rich.text import Text

    width = max(len(entry.name) for entry in entries)
    blocks = []
    for entry in entries:
        n_bytes = size(_bytes(entry)) if _bytes(entry) else ""
        facts = f"{'':{width - len(entry.name)}}  {n_bytes:>7}  {entry.where}"
        rest = "".join(f"\n  {console.clean(line)}" for line in (entry.description, _sampling(entry)) if line)
        blocks.append(Text.assemble((console.clean(entry.name), "bold"), facts, (rest, "dim")))
    return Text("\n\n").join(blocks)


def _bytes(entry: Entry) -> int:
    """The size of the file as the list gives it, else as it is on this machine; 0 if nobody knows."""
    return entry.bytes or (entry.path.stat().st_size if entry.path else 0)


def _sampling(entry: Entry) -> str:
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in entry.sampling.items())
