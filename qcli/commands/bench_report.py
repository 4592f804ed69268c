"""The results of `qcli bench`, as JSON and as tables of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from qcli import console
from qcli.bench.disk import CacheSize, DiskReads
from qcli.bench.machine import Machine
from qcli.bench.measure import Result
from qcli.commands.tables import new_table
from qcli.wording import counted, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_WIDTH = 80  # characters in a line of the tables of parts
_PARTS, _FIGURES = 18, 11  # of these, for the names of the parts, and for each case at least


@dataclass(frozen=True)
class WholeModel:
    """The model with all its layers, where only the first were measured."""

    layers: int
    size_bytes: int
    tok_per_s: list[float | None]  # an estimate for each result; None if there is none


@dataclass(frozen=True)
class Report:
    """Results, and the model and the machine that they are of."""

    model: str
    architecture: str
    layers: int
    size_bytes: int
    kv_type: str
    machine: Machine
    results: Sequence[Result]
    whole: WholeModel | None = None  # if only some layers were measured
    cache_size: CacheSize | None = None  # of a streamed model
    peer: dict[str, str] | None = None  # name, version, features

    def as_json(self) -> list[dict[str, Any]]:
        """An object for each case; `parts` are seconds of the median repetition."""
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
        if self.cache_size and result.disk_reads:
            value["streaming"] = _streaming(self.cache_size, result.disk_reads)
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
        facts = [
            f"{self.model} · {self.architecture} · {counted(self.layers, 'layer')}{cut} · {size(self.size_bytes)}{kept}",
            f"{machine.cpu} · {counted(machine.cores, 'core')} · {machine.dot_unit}",
            f"memory is read at {reads} thread{'s' if max(samples) > 1 else ''}: the roofline",
        ]
        if cache := self.cache_size:
            there = f"room for {cache.slots} of {cache.experts_per_layer} experts in each layer"
            facts.append(f"streamed: may use {size(cache.ram)}, which is {there}")
        return facts

    def _several(self, what: str) -> bool:
        return len({getattr(result.case, what) for result in self.results}) > 1

    def _labels(self) -> list[str]:
        """A short name for each result: tg64, or tg64 t2 b512 where threads or batch sizes differ."""
        more = [what for what in ("threads", "batch") if self._several(what)]
        cases = [result.case for result in self.results]
        return [" ".join([case.name, *(f"{what[0]}{getattr(case, what)}" for what in more)]) for case in cases]

    def _speeds(self) -> Table:
        rows = [self._row(i, result) for i, result in enumerate(self.results)]
        table = _table("test")
        for heading in list(rows[0])[1:]:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*row.values())
        return table

    def _row(self, i: int, result: Result) -> dict[str, str]:
        """The cells of a result in the table of speeds, by their heading."""
        case = result.case
        row = {"test": case.name}
        if not self.cache_size:  # a streamed model has one number of threads, and its table no space in 80 columns
            row["threads"] = str(case.threads)
        if self._several("batch"):
            row["batch"] = str(case.batch)
        row |= {"tok/s": speed(result.tok_per_s), "±": speed(result.stdev)}
        row |= {"GB/s": f"{result.gb_per_s:.1f}", "roofline": f"{result.roofline:.0%}"}
        return row | self._beside(i, result)

    def _beside(self, i: int, result: Result) -> dict[str, str]:
        if self.peer:
            return {
                self.peer["name"]: speed(result.peer_tok_per_s),
                "ratio": f"{result.tok_per_s / result.peer_tok_per_s:.2f}",
            }
        if result.disk_reads:
            return _disk_cells(result.disk_reads)
        if self.whole:
            estimate = self.whole.tok_per_s[i]
            return {f"{self.whole.layers} layers": f"≈ {speed(estimate)}" if estimate else "?"}
        return {}

    def _notes(self) -> list[str]:
        if self.peer:
            return [f"{self.peer['name']}: llama-cpp-python {self.peer['version']}"]
        if self.cache_size:
            return ["hits: experts that were in memory · waits: share of the time, for the disk"]
        if not self.whole:
            return []
        whole = size(self.whole.size_bytes)
        if None in self.whole.tok_per_s:
            return [f"?: no estimate for all {self.whole.layers} layers; these lack a kind that the others have"]
        return [f"≈: an estimate for all {self.whole.layers} layers, if {whole} of memory are free"]


def _disk_cells(disk: DiskReads) -> dict[str, str]:
    megabytes = disk.bytes_per_token / 1e6
    return {
        "hits": "" if disk.hit_rate is None else f"{disk.hit_rate:.0%}",
        "MB/token": f"{megabytes:.{0 if megabytes >= 100 else 1}f}",
        "waits": f"{disk.wait_share:.0%}",
        "disk GB/s": f"{disk.gb_per_s:.2f}",
    }


def _streaming(cache: CacheSize, disk: DiskReads) -> dict[str, Any]:
    return {
        "ram_bytes": cache.ram,
        "slots": cache.slots,
        "experts_per_layer": cache.experts_per_layer,
        "hit_rate": None if disk.hit_rate is None else round(disk.hit_rate, 4),
        "bytes_per_token": round(disk.bytes_per_token),
        "wait_share": round(disk.wait_share, 4),
        "disk_gb_per_s": round(disk.gb_per_s, 4),
    }


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
    table = new_table()
    table.add_column(first, no_wrap=True)
    return table


def speed(tok_per_s: float) -> str:
    """At least three digits: 5.23, 52.3, 523, 5,230."""
    return f"{tok_per_s:,.{0 if tok_per_s >= 100 else 1 if tok_per_s >= 10 else 2}f}"
