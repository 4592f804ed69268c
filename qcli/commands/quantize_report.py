"""What `qcli quantize` prints: the table of a dry run, or what was written."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from qcli import console
from qcli.commands.tables import new_table
from qcli.gguf.types import BLOCKS
from qcli.wording import counted, quantity

if TYPE_CHECKING:
    from rich.console import RenderableType

    from qcli.quantize.job import Change, Job


def report(job: Job, seconds: float | None, as_json: bool, quiet: bool) -> None:
    """Print what was done with each tensor, or would be; seconds: None for a dry run."""
    if as_json:
        console.json(_as_json(job, seconds))
    elif seconds is None:
        console.table(_drawn(job))
    if as_json or quiet:
        return
    for line in replacements(job.changes):
        console.info(line)
    if job.without_importance:
        what = f"{counted(len(job.without_importance), 'matrix', 'matrices')}, such as {job.without_importance[0]}"
        console.info(f"the importance matrix says nothing about {what}")
    if seconds is not None:
        parts = f" in {len(job.paths)} parts" if len(job.paths) > 1 else ""
        console.info(f"{job.paths[0]}{parts}: {_summary(job)}, in {seconds:.1f} s")


def replacements(changes: Sequence[Change]) -> list[str]:
    """A line for each type that did not fit the rows of some matrices, and the type that they have in its place."""
    groups: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for change in changes:
        if change.type != change.wanted:
            groups[change.wanted, change.type].append(change)
    return [_replacement(wanted, kind, of) for (wanted, kind), of in groups.items()]


def _replacement(wanted: str, kind: str, of: Sequence[Change]) -> str:
    which = counted(len(of), "matrix", "matrices") + f", such as {console.clean(of[0].tensor.name)}"
    rows, columns = of[0].tensor.shape[-1], BLOCKS[wanted].columns
    return f"{kind} in place of {wanted}: {which}, whose rows of {rows} are no multiple of {columns}"


def _summary(job: Job) -> str:
    return f"{quantity(job.n_bytes, 'B')}, {_bits(job.changes):.2f} bits a weight"


def _bits(changes: Sequence[Change]) -> float:
    return 8 * sum(c.new.n_bytes for c in changes) / sum(prod(c.tensor.shape) for c in changes)


def _as_json(job: Job, seconds: float | None) -> dict[str, Any]:
    return {
        "source": str(job.source.path),
        "files": [str(path) for path in job.paths] if seconds is not None else [],
        "type": job.name,
        "bytes": job.n_bytes,
        "bits_per_weight": _bits(job.changes),
        "without_importance": job.without_importance,
        "tensors": [
            {"name": c.tensor.name, "shape": list(c.tensor.shape), "from": c.tensor.type, "to": c.type, "wanted": c.wanted,
             "bytes": c.new.n_bytes}
            for c in job.changes
        ],
        "seconds": seconds,
    }  # fmt: skip


def _drawn(job: Job) -> RenderableType:
    """A table of the old and the new types: the tensors of all layers with the same name and types share a row."""
    from rich.console import Group
    from rich.text import Text

    groups: dict[tuple[str, str, str], list[Change]] = defaultdict(list)
    for change in job.changes:
        groups[re.sub(r"\d+", "*", change.tensor.name, count=1), change.tensor.type, change.type].append(change)
    table = new_table()
    for heading in ("tensor", "from", "to"):
        table.add_column(heading, overflow="fold")
    for heading in ("tensors", "size", "becomes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for (name, before, after), changes in groups.items():
        sizes = sum(c.tensor.n_bytes for c in changes), sum(c.new.n_bytes for c in changes)
        became = after if after != before else ""
        cells = [name, before, became, str(len(changes)), *(quantity(size, "B") for size in sizes)]
        table.add_row(*(Text(console.clean(cell)) for cell in cells))
    parts = f", {len(job.paths)} parts" if len(job.paths) > 1 else ""
    return Group(table, "", Text(f"{job.name}: {_summary(job)}{parts}"))
