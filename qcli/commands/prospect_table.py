"""A list of a model's files to choose from: size, bits, whether each fits, how fast it would be, and which one to take."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qcli.console import clean
from qcli.wording import size

if TYPE_CHECKING:
    from qcli.forecast.prospect import Prospect
    from qcli.forecast.survey import Survey
    from qcli.hub.repo_files import Variant

_HEADINGS = ("", "", "quant", "size", "bits", "fit", "tok/s")
_BITS, _NAME = 4, 2  # columns: what is left out first where there is no room, and what is cut
_LEAST = 8  # characters of a name
_WIDEST = 120  # characters of a sentence
_RIGHT = {1, 3, 4, 6}  # columns that are numbers


def lines(found: Sequence[Variant], survey: Survey, columns: float) -> list[str]:
    """The list, then what is recommended, in lines of so many characters."""
    taken = survey.recommended[0] if survey.recommended else -1
    rows = [list(_HEADINGS)] + [
        _row(i, one, told, i == taken) for i, (one, told) in enumerate(zip(found, survey.files, strict=True))
    ]
    told = [i for i in range(len(_HEADINGS)) if i == 0 or any(row[i] for row in rows[1:])]
    if _total(_widths(rows, told)) >= columns:
        told = [i for i in told if i != _BITS]
    wrapped = textwrap.wrap(_reason(found, survey), int(min(columns - 1, _WIDEST)), subsequent_indent="  ")
    return [*_aligned(rows, told, columns), "", *wrapped]


def as_json(found: Sequence[Variant], survey: Survey, remark: str) -> dict[str, Any]:
    """The same for programs; what is not known is null."""
    taken, reason = survey.recommended or (None, None)
    files = [
        {
            "quant": one.label,
            "file": one.name,
            "files": len(one.files),
            "bytes": told.bytes,
            "bits_per_weight": told.bits and round(told.bits, 2),
            "fit": told.fit,
            "needed_bytes": told.needed,
            "tok_per_s": told.tok_per_s and round(told.tok_per_s, 2),
            "estimated": told.estimated,
        }
        for one, told in zip(found, survey.files, strict=True)
    ]
    return {
        "recommended": None if taken is None else found[taken].label,
        "reason": reason,
        "remark": remark or None,
        "free_bytes": survey.free,
        "models": files,
    }


def speed(told: Prospect) -> str:
    """~12, 4.1; ~ for one that was told from another file's."""
    if told.tok_per_s is None:
        return ""
    return f"{'~' if told.estimated else ''}{told.tok_per_s:,.{0 if told.tok_per_s >= 9.95 else 1}f}"


def _row(i: int, one: Variant, told: Prospect, taken: bool) -> list[str]:
    amount = size(told.bytes) if told.bytes else "?"
    about = "~" if one.bytes is None and told.bytes else ""
    bits = f"{told.bits:.1f}" if told.bits else ""
    return ["*" if taken else "", str(i + 1), clean(one.label), about + amount, bits, told.fit, speed(told)]


def _aligned(rows: list[list[str]], told: list[int], columns: float) -> list[str]:
    """The columns that are told, side by side; names are cut at the front if they have to be."""
    widths = _widths(rows, told)
    name, gap = told.index(_NAME), 2 if _total(widths) < columns else 1
    over = _total(widths, gap) - columns + 1
    if over > 0:
        widths[name] = max(_LEAST, widths[name] - int(over))
    lines = []
    for row in rows:
        cells = [row[i] for i in told]
        if len(cells[name]) > widths[name]:
            cells[name] = "…" + cells[name][1 - widths[name] :]
        padded = (
            f"{cell:>{width}}" if i in _RIGHT else f"{cell:{width}}"
            for i, cell, width in zip(told, cells, widths, strict=True)
        )
        lines.append((gap * " ").join(padded).rstrip())
    return lines


def _widths(rows: list[list[str]], told: Sequence[int]) -> list[int]:
    return [max(len(row[i]) for row in rows) for i in told]


def _total(widths: Sequence[int], gap: int = 2) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _reason(found: Sequence[Variant], survey: Survey) -> str:
    if not survey.recommended:
        free = f": {size(max(0, survey.free))} of memory are free for a model"
        return f"none of them runs here{free if any(one.fit == 'too large' for one in survey.files) else ''}"
    taken, reason = survey.recommended
    return f"* {clean(found[taken].label)}: {reason}"
