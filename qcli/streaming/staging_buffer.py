"""Memory that the experts of a prompt's chunk pass by: one half is met while the other is read, from layer to layer.

Which experts of the next layer a chunk will ask for is known only when that layer has routed it, but the disk need not idle
until then: of many tokens, nearly all experts are asked for by some.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qcli.host.pages import pages
from qcli.streaming.layer import Layer, Memory
from qcli.streaming.reader import Reader, Ticket


@dataclass(frozen=True)
class Passing:
    """An expert in memory that is not its own, for one turn."""

    expert: int
    memory: Memory
    ticket: Ticket


@dataclass(frozen=True)
class Turn:
    """Neighbouring experts that are met together."""

    experts: list[int] = field(default_factory=list)  # in order
    missing: list[int] = field(default_factory=list)  # each may have that place of a half


@dataclass(frozen=True, eq=False)
class Ahead:
    """What was read before anybody asked for it."""

    layer: Layer
    half: int
    end: int  # of the experts that have a place in this half if they are missing
    missing: list[int]
    passing: dict[int, Passing]  # the likely ones of these


class Stage:
    """Two halves of memory, and what is on its way there."""

    def __init__(self) -> None:
        self._halves: tuple[Memory, Memory] = pages(0), pages(0)
        self._coming: tuple[list[Ticket], list[Ticket]] = [], []
        self._ahead: Ahead | None = None

    def allot(self, size: int) -> None:
        """Have so many bytes in each half."""
        self._halves = pages(size), pages(size)

    def clear(self, half: int) -> None:
        """Wait for what a turn that was interrupted, or a wrong guess, still brings."""
        for ticket in self._coming[half]:
            ticket.join()
        self._coming[half].clear()

    def read(self, reader: Reader, layer: Layer, expert: int, half: int, place: int, urgent: bool = True) -> Passing:
        """Begin to read an expert into a place of one half."""
        memory = self._halves[half][place * layer.room :][: layer.room]
        ticket = reader.read(layer.spans(expert, memory), urgent)
        self._coming[half].append(ticket)
        return Passing(expert, memory, ticket)

    def read_ahead(self, reader: Reader, layer: Layer, likely: NDArray[np.bool_], half: int) -> int:
        """Begin to read the likely ones of a layer's first experts, as far as one half reaches; how many bytes."""
        missing = [expert for expert in range(layer.count) if not layer.is_here(expert)]
        most = len(self._halves[half]) // layer.room
        end = missing[most] if most < len(missing) else layer.count
        missing = missing[:most]
        self.clear(half)
        self._ahead = ahead = Ahead(layer, half, end, missing, {})
        for place, expert in enumerate(missing):
            if likely[expert] and not layer.arriving(expert):
                ahead.passing[expert] = self.read(reader, layer, expert, half, place, urgent=False)
        return sum(passing.ticket.n_bytes for passing in ahead.passing.values())

    def ahead_of(self, layer: Layer) -> Ahead | None:
        """What was read ahead for a layer, if that was the last."""
        return self._ahead if self._ahead and self._ahead.layer is layer and self._ahead.passing else None

    def choose(self, reader: Reader, used: list[int]) -> int:
        """End the guessing: hurry what is asked for, give up the rest; the bytes that nobody had begun to read."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return 0
        saved = 0
        for expert, passing in ahead.passing.items():
            if expert in used:
                reader.hurry(passing.ticket)
            elif reader.give_up(passing.ticket):
                self._coming[ahead.half].remove(passing.ticket)
                saved += passing.ticket.n_bytes
        return saved
