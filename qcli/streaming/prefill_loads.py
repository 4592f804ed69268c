"""A prompt's chunk in a layer: experts are met a few at a time, in order, while the next few are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from qcli.streaming.budget import TOGETHER
from qcli.streaming.cache import Stock
from qcli.streaming.layer import Layer
from qcli.streaming.staging_buffer import Ahead, Passing, Stage, Turn
from quant.plan import Ids

STAGED = 256 << 20  # bytes for experts that a chunk passes by: half are met while the other half is read
LIKELY = 3.0  # times that an expert is expected to be asked for: if at random, one in twenty of these is not


@dataclass(frozen=True)
class Wanted:
    """The experts of a layer that a chunk asks for."""

    used: list[int]  # in order
    stay: set[int]  # in memory from now on
    keep: list[int]  # whose slots are not for others

    @classmethod
    def of(cls, held: Layer, used: Ids) -> Wanted:
        stay = held.slots.hottest(held.slots.count).tolist()
        return cls(used.tolist(), {*stay}, [*stay, *used.tolist()])


class ChunkTurns:
    """Brings experts into slots if they are to stay, else past a stage."""

    def __init__(self, stock: Stock) -> None:
        self._stock, self._stage = stock, Stage()

    @property
    def staged_bytes(self) -> int:
        """Of one half of the stage."""
        layers = self._stock.layers.values()
        return max(
            min(STAGED // 2, max(layer.count * layer.room for layer in layers)), *(layer.room for layer in layers)
        )

    def allot(self) -> None:
        """Have the stage."""
        self._stage.allot(self.staged_bytes)

    def has_guessed(self, held: Layer) -> bool:
        """Whether slots of the layer are counted on."""
        return self._stage.ahead_of(held) is not None

    def turns(self, held: Layer, chosen: Ids, slots: Ids, starts: Ids, counters: Ids) -> Iterator[None]:
        """See ExpertProvider."""
        groups = grouped(chosen, held.count, slots)
        sizes = np.sum([np.diff(group) for group in groups], axis=0)
        used = np.flatnonzero(sizes)
        held.slots.choose(used, sizes[used])
        wanted = Wanted.of(held, used)
        ahead = self._guessed(held, wanted.used)
        half = ahead.half if ahead else 0
        turns = self._cut(held, wanted.used, ahead)
        coming = self._send_for(held, turns[0], wanted, half, ahead)
        for i, turn in enumerate(turns):
            staged, half = coming, 1 - half
            if i + 1 < len(turns):
                coming = self._send_for(held, turns[i + 1], wanted, half)
            else:
                self._read_ahead(held, int(sizes.sum()), half)
            try:
                self._arrive(held, turn.experts, staged)
                for group in groups:
                    np.clip(group, group[turn.experts[0]], group[turn.experts[-1] + 1], out=starts)
                    counters[:] = 0
                    yield
            finally:  # even after Ctrl-C: this memory is for others now
                for passing in staged:
                    held.forget(passing.expert)
            for passing in staged:
                if passing.expert in wanted.stay:
                    with suppress(LookupError):
                        held.adopt(passing.expert, passing.memory, wanted.keep)

    def _guessed(self, held: Layer, used: list[int]) -> Ahead | None:
        """What was read ahead for the layer, of which these experts are asked for."""
        ahead = self._stage.ahead_of(held)
        self._stock.traffic.bytes_read -= self._stage.choose(self._stock.reader, used if ahead else [])
        return ahead if ahead and used[0] < ahead.end else None

    def _read_ahead(self, held: Layer, choices: int, half: int) -> None:
        """While the last experts of a layer are met: begin to read those that the next one will ask for, almost surely."""
        if following := self._stock.following(held):
            heat = following.slots.heat + 1.0  # one more: an expert that nobody ever asked for may be asked for
            likely = choices * heat / heat.sum() >= LIKELY
            self._stock.traffic.bytes_read += self._stage.read_ahead(self._stock.reader, following, likely, half)

    def _cut(self, held: Layer, used: list[int], ahead: Ahead | None) -> list[Turn]:
        """Experts in order, cut where more would be missing than can be staged; first those that have their places."""
        most = self.staged_bytes // held.room
        turns = [Turn([expert for expert in used if expert < ahead.end], ahead.missing)] if ahead else []
        turns.append(Turn())
        for expert in used[len(turns[0].experts) :]:
            if not held.is_here(expert):
                if len(turns[-1].missing) == most:
                    turns.append(Turn())
                turns[-1].missing.append(expert)
            turns[-1].experts.append(expert)
        return [turn for turn in turns if turn.experts]

    def _send_for(
        self, held: Layer, turn: Turn, wanted: Wanted, half: int, ahead: Ahead | None = None
    ) -> list[Passing]:
        """Begin to read those that are missing; which of them will be in one half of the stage."""
        reader, traffic = self._stock.reader, self._stock.traffic
        if not ahead:
            self._stage.clear(half)
        staged: list[Passing] = []
        for expert in turn.experts:
            if held.is_here(expert):
                continue
            if ahead and expert in ahead.passing:
                staged.append(ahead.passing[expert])
                continue
            if coming := held.arriving(expert):
                reader.hurry(coming)
                continue
            if expert in wanted.stay:
                with suppress(LookupError):
                    traffic.bytes_read += held.fetch(reader, expert, wanted.keep).n_bytes
                    continue
            staged.append(self._stage.read(reader, held, expert, half, turn.missing.index(expert)))
            traffic.bytes_read += staged[-1].ticket.n_bytes
        return staged

    def _arrive(self, held: Layer, experts: list[int], staged: list[Passing]) -> None:
        with self._stock.traffic.waiting():
            for expert in experts:
                held.settle(expert)
            for passing in staged:
                passing.ticket.wait()
                held.place(passing.expert, passing.memory)


def grouped(chosen: Ids, count: int, slots: Ids) -> list[Ids]:
    """Choices [tokens, k], `TOGETHER` tokens at a time, to slots in order of expert: where each expert's begin, [count + 1].

    As many tokens as a resident model takes together, so that an expert meets as many at a time, and its sums are the same.
    """
    groups = []
    k = chosen.shape[1]
    for first in range(0, len(chosen), TOGETHER):
        flat = chosen[first : first + TOGETHER].reshape(-1)
        base = first * k
        slots[base : base + len(flat)] = base + np.argsort(flat, kind="stable")
        groups.append(base + np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=count))]))
    return groups
