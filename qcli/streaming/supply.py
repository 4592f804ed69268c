"""Brings experts into memory as tokens are routed to them, and counts what that takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from qcli.gguf_file import GGUFFile
from qcli.streaming import heat
from qcli.streaming.budget import TOGETHER
from qcli.streaming.dense import is_expert
from qcli.streaming.layer import Layer
from qcli.streaming.lookahead import Lookahead
from qcli.streaming.pressure import Pressure
from qcli.streaming.reader import Reader
from qcli.streaming.stage import Ahead, Passing, Stage, Turn
from quant.kernels.experts import Gated
from quant.plan import Activation, Ids, Turns
from quant.weights import Matrix

STAGED = 256 << 20  # bytes for experts that a chunk of a prompt passes by: half are met while the other half is read
LIKELY = 3.0  # times that an expert is expected to be asked for: if at random, one in twenty of these is not


@dataclass
class Traffic:
    """What was asked for, and what that took."""

    hits: int = 0  # experts that a token found in memory
    misses: int = 0
    bytes_read: int = 0
    wait_s: float = 0.0  # for reads, by everybody

    @property
    def hit_rate(self) -> float:
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class Supply:
    """The experts of a model whose file is read as it runs; a quant.plan.Supply."""

    def __init__(self, file: GGUFFile, run: Ids) -> None:
        """run: see quant.plan.Plan. Raises ModelFileError if the file cannot be read again."""
        self._file, self._run = file, run
        self.reader = Reader(list({tensor.path for tensor in file.tensors.values()}))
        self.traffic = Traffic()
        self.layers: dict[str, Layer] = {}  # by the name of their gate
        self.lookahead = Lookahead()
        self._heat_path = heat.path_for(file)
        self._asked = False  # for any expert
        self._said = False  # that memory is short
        self.remembers = True  # at the end, for the next start, what was asked for
        self.chosen = 0  # the most experts that a layer gives a token
        self._staging = Stage()
        self._pressure: Pressure | None = None  # before there are slots to give back

    def of_token(self, layer: Gated, chosen: Ids, here: Ids, late: Ids) -> tuple[Turns, Turns]:
        """See quant.plan.Supply."""
        held = self._layer(layer)
        self.chosen = max(self.chosen, len(chosen))

        def before() -> Iterator[None]:
            self._asked = True
            self._mind_others()
            experts = chosen.tolist()
            held.slots.choose(chosen)
            self.lookahead.begin(layer.gate.name)
            self.traffic.bytes_read -= held.give_up(self.reader, experts)
            found = [held.is_here(expert) for expert in experts]
            for expert, is_here in zip(experts, found, strict=True):
                if not is_here:
                    self._send_for(held, expert, experts)
            _list(here, [place for place, is_here in enumerate(found) if is_here])
            _list(late, [place for place, is_here in enumerate(found) if not is_here])
            self.traffic.hits += sum(found)
            self.traffic.misses += len(found) - sum(found)
            yield

        def after() -> Iterator[None]:
            if late[0]:
                self._look_ahead(layer.gate.name)
            with self._waiting():
                for place in late[1 : 1 + late[0]].tolist():
                    held.settle(int(chosen[place]))
            self.lookahead.end(layer.gate.name)
            yield

        return before, after

    def of_tokens(self, layer: Gated, chosen: Ids, slots: Ids, starts: Ids, counters: Ids) -> Turns:
        """See quant.plan.Supply; the experts of a turn are read while those of the one before are met."""
        held = self._layer(layer)

        def turns() -> Iterator[None]:
            self._asked = True
            self._mind_others(held)
            groups = grouped(chosen[: self._run[0]], held.count, slots)
            sizes = np.sum([np.diff(group) for group in groups], axis=0)
            used = np.flatnonzero(sizes)
            held.slots.choose(used, sizes[used])
            stay = {*held.slots.hottest(held.slots.count).tolist()}
            keep = [*stay, *used.tolist()]
            ahead = self._guessed(held, used.tolist())
            first = ahead.half if ahead else 0
            sets = self._sets(held, used.tolist(), ahead)
            coming = self._stage(held, sets[0], stay, keep, first, ahead)
            for i, turn in enumerate(sets):
                staged, other = coming, (first + i + 1) % 2
                if i + 1 < len(sets):
                    coming = self._stage(held, sets[i + 1], stay, keep, other)
                else:
                    self._read_ahead(held, int(sizes.sum()), other)
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
                    if passing.expert in stay:
                        with suppress(LookupError):
                            held.adopt(passing.expert, passing.memory, keep)

        return turns

    def note_router(self, layer: Gated, router: Matrix, h: Activation) -> None:
        """See quant.plan.Supply."""
        if h.tokens == 1:
            self.lookahead.note(layer.gate.name, router, h)

    def needs(self, slots: int) -> int:
        """Bytes of memory for so many slots a layer, and to pass experts by."""
        return sum(slots * layer.room for layer in self.layers.values()) + 2 * self._staged_bytes()

    @property
    def most_slots(self) -> int:
        """The most that a layer can use."""
        return max(layer.count for layer in self.layers.values())

    def allot(self, slots: int) -> None:
        """Have so many slots in every layer."""
        for layer in self.layers.values():
            layer.allot(slots)
        self._staging.allot(self._staged_bytes())
        most = max(layer.slots.count for layer in self.layers.values())
        self._pressure = Pressure(most, self.chosen, sum(layer.room for layer in self.layers.values()))
        self._warm_up()

    @property
    def dense(self) -> list[NDArray[np.uint8]]:
        """The weights that stay in memory, uint8 [bytes] of each tensor."""
        return [tensor.data.reshape(-1) for tensor in self._file.tensors.values() if not is_expert(tensor)]

    def reset_traffic(self) -> None:
        """Count anew."""
        self.traffic = Traffic()

    @property
    def heat(self) -> heat.Heat:
        """How often each expert was asked for of late, float32 [experts] by the name of the layer's gate."""
        return {name: layer.slots.heat for name, layer in self.layers.items()}

    def close(self) -> None:
        """End the reader's lanes, and keep the heat for the next start; raises OutputError if that fails."""
        self.reader.close()
        if self._asked and self.remembers:
            heat.save(self._heat_path, self.heat)

    def _warm_up(self) -> None:
        """Begin to read the experts that were asked for most before, layer by layer, when the disk has nothing to do."""
        saved = heat.load(self._heat_path)
        for name, layer in self.layers.items():
            if len(saved.get(name, ())) == layer.count:
                layer.slots.heat = saved[name]
                for expert in layer.slots.hottest(len(layer.slots.expert_in)).tolist():
                    layer.fetch(self.reader, expert, (), urgent=False)

    def _layer(self, layer: Gated) -> Layer:
        name = layer.gate.name
        if name not in self.layers:
            self.layers[name] = Layer(self._file, layer)
        return self.layers[name]

    def _mind_others(self, chunk_in: Layer | None = None) -> None:
        """Have fewer slots where other programs left too little memory, and more again later. Raises QcliError.

        chunk_in: where a chunk has come to; the layer keeps what it has if it was read ahead for.
        """
        if not self._pressure or not self._pressure.due:
            return
        layers = self.layers.values()
        before = max(layer.slots.count for layer in layers)
        slots = self._pressure.slots_for(before, max(layer.slots.used for layer in layers))
        if slots == before:
            return
        for layer in layers:
            if layer is not chunk_in or not self._staging.ahead_of(layer):
                layer.have(self.reader, slots)
        if slots < before and not self._said:
            self._said = True
            message = f"memory is short: experts keep {slots} of {self._pressure.most} slots in each layer"
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    def _staged_bytes(self) -> int:
        return max(STAGED // 2, *(layer.room for layer in self.layers.values()))

    def _send_for(self, held: Layer, expert: int, keep: list[int]) -> None:
        """Have an expert read into a slot, urgently; none of `keep` loses its own."""
        if ticket := held.arriving(expert):
            self.reader.hurry(ticket)
            return
        while not held.is_here(expert):
            try:
                self.traffic.bytes_read += held.fetch(self.reader, expert, keep).n_bytes
                return
            except LookupError:  # all others are still being filled, maybe with this one
                with self._waiting():
                    held.settle_one()

    def _look_ahead(self, name: str) -> None:
        """While this layer's experts are read: send for those that the next one is likely to ask for."""
        following = self.lookahead.following(name)
        if following is None:
            return
        held = self.layers[following]
        guessed = self.lookahead.guess(name, following, self.chosen)
        for expert in guessed:
            if not held.is_here(expert) and not held.arriving(expert):
                with suppress(LookupError):
                    self.traffic.bytes_read += held.guess(self.reader, expert, guessed).n_bytes

    def _guessed(self, held: Layer, used: list[int]) -> Ahead | None:
        """What was read ahead for the layer, of which these experts are asked for."""
        ahead = self._staging.ahead_of(held)
        self.traffic.bytes_read -= self._staging.choose(self.reader, used if ahead else [])
        return ahead if ahead and used[0] < ahead.end else None

    def _read_ahead(self, held: Layer, choices: int, half: int) -> None:
        """While the last experts of a layer are met: begin to read those that the next one will ask for, almost surely."""
        layers = list(self.layers.values())
        place = layers.index(held) + 1
        if place < len(layers):
            following = layers[place]
            heat = following.slots.heat + 1.0  # one more: an expert that nobody ever asked for may be asked for
            likely = choices * heat / heat.sum() >= LIKELY
            self.traffic.bytes_read += self._staging.read_ahead(self.reader, following, likely, half)

    def _sets(self, held: Layer, used: list[int], ahead: Ahead | None) -> list[Turn]:
        """Experts in order, cut where more would be missing than can be staged; first those that have their places."""
        most = self._staged_bytes() // held.room
        turns = [Turn([expert for expert in used if expert < ahead.end], ahead.missing)] if ahead else []
        turns.append(Turn())
        for expert in used[len(turns[0].experts) :]:
            if not held.is_here(expert):
                if len(turns[-1].missing) == most:
                    turns.append(Turn())
                turns[-1].missing.append(expert)
            turns[-1].experts.append(expert)
        return [turn for turn in turns if turn.experts]

    def _stage(
        self, held: Layer, turn: Turn, stay: set[int], keep: list[int], half: int, ahead: Ahead | None = None
    ) -> list[Passing]:
        """Begin to read those that are missing: into slots if they are to stay, else into one half of the stage."""
        if not ahead:
            self._staging.clear(half)
        staged: list[Passing] = []
        for expert in turn.experts:
            if held.is_here(expert):
                continue
            if ahead and expert in ahead.passing:
                staged.append(ahead.passing[expert])
                continue
            if coming := held.arriving(expert):
                self.reader.hurry(coming)
                continue
            if expert in stay:
                with suppress(LookupError):
                    self.traffic.bytes_read += held.fetch(self.reader, expert, keep).n_bytes
                    continue
            staged.append(self._staging.read(self.reader, held, expert, half, turn.missing.index(expert)))
            self.traffic.bytes_read += staged[-1].ticket.n_bytes
        return staged

    def _arrive(self, held: Layer, experts: list[int], staged: list[Passing]) -> None:
        with self._waiting():
            for expert in experts:
                held.settle(expert)
            for passing in staged:
                passing.ticket.wait()
                held.place(passing.expert, passing.memory)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        began = perf_counter()
        try:
            yield
        finally:
            self.traffic.wait_s += perf_counter() - began


def _list(places: Ids, found: list[int]) -> None:
    places[0] = len(found)
    places[1 : 1 + len(found)] = found


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
