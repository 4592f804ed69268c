"""Running a model's own plans on its twin for a second or two, with reads of a disk where experts will be read."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from qcli.forecast.twin import Twin
from qcli.gguf.file import GGUFFile
from qcli.host.pages import pages
from qcli.models import Model
from qcli.runtime.engine import Engine
from qcli.runtime.sampler import Sampler
from qcli.runtime.sampling import Sampling
from qcli.streaming.cache import Stock
from qcli.streaming.expert_loader import Supply
from qcli.streaming.layer import Layer, Part
from qcli.streaming.prefetch import Lookahead, Pays
from qcli.streaming.reader import Ticket
from quant.kernels.experts import GatedExperts
from quant.plan import Batch, Ids, Plan, StageCallback
from quant.team import Team

PROMPT = 512  # tokens
_SECONDS = 1.0  # that one rehearsal takes, about
_STEPS = 4  # in a row, with guesses or without
_TEXT = 128  # tokens, before another begins
_SLICE = 8  # records of a prompt between looks at the clock
_SLOTS = 256 << 20  # bytes, more than caches hold
_QUEUE = 32  # experts on their way at a time


class Told(Pays):
    """Guesses when it is told to."""

    on = False

    def took(self, seconds: float) -> None:
        """See Pays."""


class Elsewhere(Stock):
    """Experts of a file that may not be here yet, read from another."""

    def __init__(self, file: GGUFFile, disk: Path) -> None:
        super().__init__(file, [disk])
        self._disk = disk

    def _added(self, experts: GatedExperts) -> Layer:
        held = super()._added(experts)
        held.parts = tuple(self._moved(part) for part in held.parts)
        return held

    def _moved(self, part: Part) -> Part:
        return replace(part, path=self._disk, offsets=part.offsets % (self._disk.stat().st_size - part.n_bytes))


class Rehearsal(Supply):
    """Experts are found in the twin's memory as often as they will be in the cache; the others are read from a disk."""

    def __init__(self, twin: Twin, batch: Batch, disk: Path | None = None) -> None:
        """disk: a file to read instead of the model's own, which may not be here yet."""
        self._twin = twin
        self._random = np.random.default_rng()  # a disk may remember what it gave to the rehearsal before
        self.hit_rates: Mapping[str, float] = {}  # by the name of a layer's gate
        self._homes: dict[str, tuple[NDArray[np.int64], ...]] = {}
        self._seconds_per_new_byte = 0.0
        self.guessing = Told()
        stock = Elsewhere(twin.file, disk) if disk else Stock(twin.file)
        super().__init__(twin.file, batch, stock, Lookahead(self.guessing))

    def of_token(self, layer: GatedExperts, chosen: Ids, here: Ids, late: Ids) -> tuple[StageCallback, StageCallback]:
        """See ExpertProvider."""
        before, after = super().of_token(layer, chosen, here, late)
        self._homes[layer.gate.name] = self._twin.homes(layer)
        first = next(iter(self._homes)) == layer.gate.name

        def prepared() -> Iterator[None]:
            if first:
                self._draw()
            yield from before()

        return prepared, after

    def begin(self, hit_rates: Mapping[str, float]) -> None:
        """Have a few slots in each layer, in memory that the system has given already, as that of a full cache is."""
        self.hit_rates = hit_rates
        slots = 2 * self.chosen
        most = slots * max(layer.room for layer in self.layers.values())
        memory, at = pages(max(most, min(most * len(self.layers), _SLOTS))), 0
        began = perf_counter()
        memory[:] = 0
        self._seconds_per_new_byte = (perf_counter() - began) / len(memory)
        for layer in self.layers.values():
            at = 0 if at + most > len(memory) else at
            layer.allot(slots, memory[at : at + most])
            at += most

    def bytes_per_step(self) -> float:
        """What a token reads from the disk, on average."""
        missing = (1 - self.hit_rates[name] for name in self.layers)
        return sum(self.chosen * layer.expert_bytes * m for layer, m in zip(self.layers.values(), missing, strict=True))

    def bytes_per_prompt(self, tokens: int) -> float:
        """What so many tokens read at once, no expert being in memory: every one that any of them asks for."""
        return sum(layer.expert_bytes * self._met(layer, tokens) for layer in self.layers.values())

    def seconds_to_fill(self, tokens: int, slots: int) -> float:
        """Until there is memory for their experts: a system whose host has to find it first takes seconds a gigabyte."""
        n_bytes = sum(layer.room * min(slots, self._met(layer, tokens)) for layer in self.layers.values())
        return n_bytes * self._seconds_per_new_byte

    def _met(self, layer: Layer, tokens: int) -> float:
        """How many experts of a layer so many tokens ask for, if at random."""
        return layer.count * (1 - (1 - min(1.0, self.chosen / layer.count)) ** tokens)

    def disk_bytes_per_s(self) -> float:
        """What the disk gives where many experts are asked for at a time."""
        layers = list(self.layers.values())
        free = list(pages(_QUEUE * max(layer.room for layer in layers)).reshape(_QUEUE, -1))
        coming: deque[tuple[Ticket, NDArray[np.uint8]]] = deque()
        n_bytes, began = 0, perf_counter()
        while (in_time := perf_counter() - began < _SECONDS / 2) or coming:
            if free and in_time:
                row, layer = free.pop(), layers[self._random.integers(len(layers))]
                coming.append((self.stock.reader.read(layer.spans(int(self._random.integers(layer.count)), row)), row))
            else:
                ticket, row = coming.popleft()
                ticket.wait()
                n_bytes += ticket.n_bytes
                free.append(row)
        return n_bytes / (perf_counter() - began)

    def close(self) -> None:
        """End the reader's lanes; nothing was learnt about the model's experts."""
        self.stock.reader.close()

    def _draw(self) -> None:
        """Choose anew which experts are in memory, as if the last token had been long ago."""
        for name, held in self.layers.items():
            here = self._random.random(held.count) < self.hit_rates[name]
            for expert in held.slots.expert_in[held.slots.expert_in >= 0].tolist():
                ticket = held.arriving(expert)
                if ticket and not ticket.done:  # a wrong guess
                    here[expert] = False
                else:
                    held.settle(expert)
                    held.slots.free(expert)
            for part, home in zip(held.parts, self._homes[name], strict=True):
                part.experts.addresses[:] = np.where(here, home, 0)

    def _warm_up(self) -> None:
        """Nothing was asked for before."""


def step_seconds(engine: Engine) -> float:
    """What a token of an answer takes, drawn by the default sampling, with guesses of experts or without: the quicker way."""
    rehearsal = engine.supply if isinstance(engine.supply, Rehearsal) else None
    sampler = Sampler(Sampling(temperature=0.8, min_p=0.0, seed=0), engine.vocab_size)
    took: dict[bool, list[float]] = {way: [] for way in ((False, True) if rehearsal else (False,))}
    awake = perf_counter() + _SECONDS / 2  # a disk's first reads after a pause take up to twice as long
    while (now := perf_counter()) < awake + _SECONDS or not took[False]:
        for guessing, seconds in took.items():
            if rehearsal:
                rehearsal.guessing.on = guessing
            one = _step_seconds(engine, sampler)
            if now >= awake:
                seconds.append(one)
    return min(float(np.mean(seconds)) for seconds in took.values())


def _step_seconds(engine: Engine, sampler: Sampler) -> float:
    """The mean of a few steps, near the beginning of any text."""
    ids = np.random.default_rng().integers(0, engine.vocab_size, min(_STEPS, engine.ctx)).tolist()
    if engine.position + len(ids) > min(_TEXT, engine.ctx):
        engine.reset()
    began = perf_counter()
    for token in ids:
        sampler.sample(engine.step(token))
    return (perf_counter() - began) / len(ids)


def prompt_seconds(model: Model, batch: Batch, threads: int, tokens: int) -> float:
    """What the layers take for a prompt whose experts are in memory: measured of the first, and the like of the others."""
    plan = Plan(tokens, threads, batch)
    ids = np.random.default_rng(2).integers(0, model.vocab_size, tokens)
    model.trunk(plan, ids)
    records, parts = plan.compile(), plan.parts
    batch.set(tokens, 0)
    team = Team(threads)
    try:
        took = _replayed(team, records)
    finally:
        team.close()
    return _extrapolated(records, parts, took)


def _replayed(team: Team, records: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds of each record, of as many as there is time for."""
    ticks = np.zeros((len(records), 2), np.int64)
    began, done = perf_counter(), 0
    while done < len(records) and perf_counter() - began < _SECONDS:
        part = slice(done, done + _SLICE)
        team.run(records[part], ticks[part])
        done = min(done + _SLICE, len(records))
    seconds = perf_counter() - began
    spent: NDArray[np.float64] = ticks[:done].sum(1) * (seconds / float(ticks[:done].sum()))
    return spent


def _extrapolated(records: NDArray[np.int64], parts: list[str], took: NDArray[np.float64]) -> float:
    """A record that was not replayed takes what others of its kernel and part of the model took."""
    known: dict[tuple[str, int], list[float]] = defaultdict(list)
    keys = [(part, int(kernel)) for part, kernel in zip(parts, records[:, 0], strict=True)]
    for key, seconds in zip(keys, took, strict=False):
        known[key].append(float(seconds))
    rest = (float(np.mean(known[key])) for key in keys[len(took) :] if key in known)
    return float(took.sum()) + sum(rest)
