"""What `qcli models` tells of each model: where it is, and of one that is on this machine what its file says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcli.errors import QcliError
from qcli.host.file_sizes import total_size
from qcli.host.named_files import resolved

if TYPE_CHECKING:
    from qcli.catalog.entry import Entry
    from qcli.gguf.file import GGUFFile
    from qcli.local_models.found import Found

MOST_READ = 250  # files whose headers are read, a few milliseconds each


@dataclass
class Row:
    """A model of the list."""

    name: str
    where: str  # "embedded", "cached" by the hub, "on disk", the name of a tool, "not downloaded" or "missing"
    path: Path | None = None
    bytes: int = 0
    architecture: str = ""
    quant: str = ""
    # "in memory", "streamed", "too large", "cannot run"; by its size alone "larger than memory"; "": not known
    fit: str = ""
    last_used: float | None = None  # seconds since 1970
    entry: Entry | None = None  # of models.toml
    is_model: bool = True

    def as_json(self) -> dict[str, Any]:
        """All that is known, without what is not."""
        said: dict[str, Any] = {"name": self.name, "where": self.where, "path": str(self.path) if self.path else None}
        facts = {key: getattr(self, key) for key in ("bytes", "architecture", "quant", "fit", "last_used")}
        own = ("description", "repo", "file", "alias_of", "aliases", "sha256", "sampling")
        more = {key: getattr(self.entry, key) for key in own} if self.entry else {}
        return said | {key: value for key, value in (facts | more).items() if value}


def all_rows() -> tuple[list[Row], list[str]]:
    """Every model that is known or found, and remarks on what could not be looked at. Raises UsageError, QcliError."""
    from qcli.catalog.entries import load_catalog
    from qcli.forecast import glance
    from qcli.local_models import hub
    from qcli.local_models.search import search

    rows = [_of_entry(entry) for entry in load_catalog().values()]
    known = {resolved(row.path) for row in rows if row.path and row.entry and row.entry.repo}
    searched = search()
    rows += [_of_found(one) for one in searched.models if one.tool != hub.TOOL or resolved(one.path) not in known]
    here = [row for row in rows if row.path]
    free = glance.room()
    for row in here[:MOST_READ]:
        _read(row, free)
    for row in rows:
        if row.path is None and row.bytes:
            row.fit = "in memory" if glance.fits(row.bytes, free) else "larger than memory"
    left = len(here) - MOST_READ
    remarks = [f"{left:,} more files were not read; `qcli show NAME` reads one"] if left > 0 else []
    return [row for row in rows if row.is_model], [*searched.remarks, *remarks]


def _of_entry(entry: Entry) -> Row:
    from qcli.catalog.resolve import path_of, place_of

    path = path_of(entry)
    return Row(entry.name, place_of(entry), path, entry.bytes or (total_size(path) if path else 0), entry=entry)


def _of_found(found: Found) -> Row:
    from qcli.local_models import hub

    where = "cached" if found.tool == hub.TOOL else found.tool
    return Row(found.name, where, found.path, total_size(*found.parts))


def _read(row: Row, free: int) -> None:
    """Add what the file of a model says, and when it was last used."""
    from qcli.forecast.glance import fit
    from qcli.gguf.file import GGUFFile
    from qcli.gguf.kinds import other_kind
    from qcli.gguf.summary import is_supported
    from qcli.local_models import last_used

    assert row.path
    row.last_used = last_used.when(row.path)
    try:
        with GGUFFile.open(row.path) as file:
            row.is_model = row.entry is not None or other_kind(file) is None
            row.architecture = _architecture(file)
            row.quant = _quant(row.path, file)
            row.bytes = row.bytes if row.entry and row.entry.bytes else total_size(*file.paths)
            row.fit = fit(file, free) if is_supported(row.architecture) else "cannot run"
    except (QcliError, OSError):
        row.fit = "cannot run"


def _architecture(file: GGUFFile) -> str:
    said = file.metadata.get("general.architecture")
    return said if isinstance(said, str) and said.isprintable() and len(said) < 40 else ""


def _quant(path: Path, file: GGUFFile) -> str:
    """By the name of the file, else by its number for a mix, else the type of most of the weights."""
    from qcli.hub.quant_names import quant_of
    from qcli.quantize.mixes import MIXES

    if named := quant_of(path.name):
        return named
    number = file.metadata.get("general.file_type")
    by_number = {mix.file_type: name for name, mix in MIXES.items()}
    if isinstance(number, int) and number in by_number:
        return by_number[number]
    totals: dict[str, int] = {}
    for tensor in file.tensors.values():
        totals[tensor.type] = totals.get(tensor.type, 0) + tensor.n_bytes
    return max(totals, key=lambda kind: totals[kind], default="")
