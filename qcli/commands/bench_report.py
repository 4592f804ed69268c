"""What `qcli bench` says, as JSON and as tables of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from qcli import console
from qcli.bench.machine import Machine
from qcli.bench.measure import Result

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_WIDTH = 80  # columns that the tables of parts keep to
_PARTS, _FIGURES = 18, 11  # of these, for the names of parts, and for a case at least


@dataclass(frozen=True)
class Whole:
    """All layers of a model of which some were measured."""

    layers: int
    size_bytes: int
    tok_per_s: list[float | None]  # of each result; an estimate, if there can be one


@dataclass(frozen=True)
class Report:
    """Results, and what they are of."""

    model: str
    architecture: str
    layers: int
    size_bytes: int
    kv_type: str
    machine: Machine
    results: Sequence[Result]
    whole: Whole | None = None
    peer: dict[str, str] | None = None  # name, version, features

    def as_json(self) -> list[dict[str, Any]]:
        """An object for each test; `parts` are seconds of the median repetition."""
        return [self._object(i, result) for i, result in enumerate(self.results)]

    def drawn(self) -> RenderableType:
        """The speeds, then where the time goes."""
        from rich.console import Group
        from rich.text import Text

        lines = [Text(console.clean(line), style="dim" if i else "bold") for i, line in enumerate(self._facts())]
        labels = self._labels()
        beside = max(1, (_WIDTH - _PARTS) // (max(_FIGURES, *map(len, labels)) + 2))
        spaced: list[RenderableType] = []
        for i in range(0, len(labels), beside):
            spaced += ["", _parts(self.results[i : i + beside], labels[i : i + beside])]
        notes = [Text(note, style="dim") for note in self._notes()]
        return Group(*lines, "", self._speeds(), *notes, *spaced)

    def _object(self, i: int, result: Result) -> dict[str, Any]:
        case = result.case
        value: dict[str, Any] = {
            "test": case.name,
            "tok_per_s": round(result.tok_per_s, 4),
            "stdev": round(result.stdev, 4),
            "gb_per_s": round(result.gb_per_s, 4),
            "roofline": round(result.roofline, 4),
            "parts": {part: round(seconds, 7) for part, seconds in result.parts().items()},
            "seconds": round(result.median_s, 7),
            "tokens": case.tokens,
            "depth": case.depth,
            "threads": case.threads,
            "batch": case.batch,
            "kv_type": self.kv_type,
            "repetitions": len(result.seconds),
            "model": self.model,
            "architecture": self.architecture,
            "layers": self.layers,
            "size_bytes": self.size_bytes,
            "machine": asdict(self.machine) | {"bandwidth_gb_per_s": round(result.bandwidth, 3)},
        }
        if self.whole:
            estimate = self.whole.tok_per_s[i]
            value["estimate"] = {
                "layers": self.whole.layers,
                "size_bytes": self.whole.size_bytes,
                "tok_per_s": round(estimate, 4) if estimate else None,
            }
        if self.peer:
            speed = {"tok_per_s": round(result.peer_tok_per_s, 4), "stdev": round(result.peer_stdev, 4)}
            value["peer"] = self.peer | speed | {"ratio": round(result.tok_per_s / result.peer_tok_per_s, 4)}
        return value

    def _facts(self) -> list[str]:
        machine = self.machine
        cut = f" of {self.whole.layers}, random weights" if self.whole else ""
        samples: dict[int, list[float]] = {}
        for result in self.results:
            samples.setdefault(result.case.threads, []).extend(result.bandwidths)
        reads = ", ".join(f"{median(rates):.1f} GB/s with {threads}" for threads, rates in samples.items())
        kept = "" if self.kv_type == "f16" else f" · {self.kv_type} keys and values"
        cores = f"{machine.cores} core{'s' if machine.cores > 1 else ''}"
        return [
            f"{self.model} · {self.architecture} · {self.layers} layers{cut} · {gigabytes(self.size_bytes)}{kept}",
            f"{machine.cpu} · {cores} · {machine.dot_unit}",
            f"memory is read at {reads} thread{'s' if max(samples) > 1 else ''}: the roofline",
        ]

    def _several(self, what: str) -> bool:
        return len({getattr(result.case, what) for result in self.results}) > 1

    def _labels(self) -> list[str]:
        """tg64, or tg64 t2 b512 where there are several."""
        more = [what for what in ("threads", "batch") if self._several(what)]
        cases = [result.case for result in self.results]
        return [" ".join([case.name, *(f"{what[0]}{getattr(case, what)}" for what in more)]) for case in cases]

    def _speeds(self) -> Table:
        table = _table("test")
        several_batches = self._several("batch")
        more = [self.peer["name"], "ratio"] if self.peer else [f"{self.whole.layers} layers"] if self.whole else []
        for heading in ("threads", *(["batch"] if several_batches else []), "tok/s", "±", "GB/s", "roofline", *more):
            table.add_column(heading, justify="right", no_wrap=True)
        for i, result in enumerate(self.results):
            case = result.case
            cells = [case.name, str(case.threads), *([str(case.batch)] if several_batches else [])]
            cells += [speed(result.tok_per_s), speed(result.stdev), f"{result.gb_per_s:.1f}", f"{result.roofline:.0%}"]
            table.add_row(*cells, *self._beside(i, result))
        return table

    def _beside(self, i: int, result: Result) -> list[str]:
        if self.peer:
            return [speed(result.peer_tok_per_s), f"{result.tok_per_s / result.peer_tok_per_s:.2f}"]
        if self.whole:
            estimate = self.whole.tok_per_s[i]
            return [f"≈ {speed(estimate)}" if estimate else "?"]
        return []

    def _notes(self) -> list[str]:
        if self.peer:
            return [f"{self.peer['name']}: llama-cpp-python {self.peer['version']}"]
        if not self.whole:
            return []
        size = gigabytes(self.whole.size_bytes)
        if None in self.whole.tok_per_s:
            return [f"?: no estimate for all {self.whole.layers} layers; these lack a kind that the others have"]
        return [f"≈: an estimate for all {self.whole.layers} layers, if {size} of memory are free"]


def _parts(results: Sequence[Result], labels: list[str]) -> Table:
    """Milliseconds a token and share of the time, for each part of the model."""
    table = _table("ms a token")
    for label in labels:
        table.add_column(label, justify="right", no_wrap=True)
    parts = [result.parts() for result in results]
    for part in dict.fromkeys(part for found in parts for part in found):
        pairs = zip(results, parts, strict=True)
        table.add_row(part, *(_part(result, found.get(part, 0.0)) for result, found in pairs))
    return table


def _part(result: Result, seconds: float) -> str:
    return f"{1e3 * seconds / result.case.tokens:.3f} {seconds / result.median_s:4.0%}"


def _table(first: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, no_wrap=True)
    return table


def speed(tok_per_s: float) -> str:
    """Three digits or more."""
    return f"{tok_per_s:,.{0 if tok_per_s >= 100 else 1 if tok_per_s >= 10 else 2}f}"


def gigabytes(count: int) -> str:
    """2.1 GB, 24 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
