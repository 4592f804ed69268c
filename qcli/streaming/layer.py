"""One layer's experts: where each lies in the file, and where in memory kernels find those that are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.file import GGUFFile
from qcli.host.pages import PAGE, give_back, pages
from qcli.streaming.reader import Reader, Span, Ticket, room
from qcli.streaming.slots import Slots
from quant.kernels.experts import GatedExperts
from quant.weights import ExpertMatrices

Memory = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Part:
    """One matrix of every expert: where each begins in its file, and the table that kernels find them by."""

    experts: ExpertMatrices
    path: Path
    offsets: NDArray[np.int64]
    n_bytes: int
    first: int  # byte of a slot

    @classmethod
    def of(cls, file: GGUFFile, experts: ExpertMatrices, first: int) -> Part:
        """Given where experts lie in the map, which from now on nobody reads."""
        tensor = file.tensor(experts.name)
        offsets = experts.addresses - tensor.data.ctypes.data + tensor.offset
        experts.addresses[:] = 0
        return cls(experts, tensor.path, offsets, experts.bytes, first)

    @property
    def end(self) -> int:
        """Byte of a slot, as `first`."""
        return self.first + room(self.n_bytes)

    def span(self, expert: int, memory: Memory) -> Span:
        """What to read into a slot."""
        return Span(self.path, int(self.offsets[expert]), self.n_bytes, memory[self.first : self.end])

    def place(self, expert: int, address: int) -> None:
        """Let kernels find an expert in the slot at this address; 0: nowhere."""
        self.experts.addresses[expert] = address and address + self.first + self.offsets[expert] % PAGE


class Layer:
    """Slots for some of the experts; none before `allot`."""

    def __init__(self, file: GGUFFile, experts: GatedExperts) -> None:
        self.name = experts.gate.name
        parts: list[Part] = []
        for part in (experts.gate, experts.up, experts.down):
            parts.append(Part.of(file, part, parts[-1].end if parts else 0))
        self.parts = tuple(parts)
        self.room = parts[-1].end  # bytes of a slot
        self.expert_bytes = sum(part.n_bytes for part in parts)  # in the file
        self.count = experts.gate.count
        self.slots = Slots(self.count, 1)
        self._memory: Memory = pages(0)
        self._arriving: dict[int, Ticket] = {}  # experts whose slot is being filled
        self._guessed: list[int] = []  # of these, since the layer was last asked

    def allot(self, slots: int, memory: Memory | None = None) -> None:
        """Have so many slots, all of them empty; memory: `room` bytes for each, its own if not given."""
        heat = self.slots.heat
        self.slots = Slots(self.count, slots)
        self.slots.heat = heat
        self._memory = pages(len(self.slots.expert_in) * self.room) if memory is None else memory

    def is_here(self, expert: int) -> bool:
        """Whether kernels find it."""
        return bool(self.parts[0].experts.addresses[expert])

    def arriving(self, expert: int) -> Ticket | None:
        """What is on its way into the expert's slot; what failed to come no longer is."""
        ticket = self._arriving.get(expert)
        if ticket and ticket.done and ticket.error:
            self._drop(expert)
            return None
        return ticket

    def fetch(self, reader: Reader, expert: int, keep: Iterable[int], urgent: bool = True) -> Ticket:
        """Begin to read an expert into a slot of its own, which may be that of another, but none in `keep`.

        LookupError if all are kept, or still being filled.
        """
        self._take(expert, keep)
        ticket = reader.read(self.spans(expert, self._slot(expert)), urgent)
        self._arriving[expert] = ticket
        return ticket

    def adopt(self, expert: int, memory: Memory, keep: Iterable[int]) -> None:
        """Copy an expert that was read elsewhere into a slot of its own; LookupError as fetch."""
        self._take(expert, keep)
        self._slot(expert)[:] = memory
        self.place(expert, self._slot(expert))

    def settle(self, expert: int) -> None:
        """Wait for an expert if it is on its way, and let kernels find it; ModelFileError if it does not come."""
        if ticket := self._arriving.get(expert):
            ticket.join()  # Ctrl-C may end this: the expert is still on its way
            if ticket.error:
                self._drop(expert)
                raise ticket.error
            del self._arriving[expert]
            self.place(expert, self._slot(expert))

    def guess(self, reader: Reader, expert: int, keep: Iterable[int]) -> Ticket:
        """As fetch, for an expert that may not be asked for: when the disk has nothing else to do."""
        ticket = self.fetch(reader, expert, keep, urgent=False)
        self._guessed.append(expert)
        return ticket

    def give_up(self, reader: Reader, chosen: Sequence[int]) -> int:
        """Take back guesses that were wrong, as far as nobody has begun to read them; the bytes of these."""
        saved = 0
        for expert in self._guessed:
            ticket = self._arriving.get(expert)
            if ticket and expert not in chosen and reader.give_up(ticket):
                self._drop(expert)
                saved += ticket.n_bytes
        self._guessed.clear()
        return saved

    def have(self, reader: Reader, slots: int) -> None:
        """Have fewer or more of the allotted slots; memory of those that go is the system's again.

        What no lane has begun to read is taken back; experts that are being read keep their slots.
        """
        if slots < self.slots.count:
            self._stop_reading(reader)
        with suppress(LookupError):
            while self.slots.count > slots:
                slot, before = self.slots.close([*self._arriving])
                if before >= 0:
                    self.forget(before)
                give_back(self._memory, slot * self.room, self.room)
        while self.slots.count < min(slots, len(self.slots.expert_in)):
            self.slots.reopen()

    def settle_one(self) -> None:
        """Wait for whichever expert has been on its way for longest."""
        self.settle(next(iter(self._arriving)))

    def spans(self, expert: int, memory: Memory) -> list[Span]:
        """What to read for an expert into `room` bytes of memory."""
        return [part.span(expert, memory) for part in self.parts]

    def place(self, expert: int, memory: Memory) -> None:
        """Let kernels find an expert that was read into this memory."""
        address = memory.ctypes.data
        for part in self.parts:
            part.place(expert, address)

    def forget(self, expert: int) -> None:
        """Let no kernel find it any more."""
        for part in self.parts:
            part.place(expert, 0)

    def _stop_reading(self, reader: Reader) -> None:
        for expert, ticket in list(self._arriving.items()):
            if reader.give_up(ticket):
                self._drop(expert)

    def _take(self, expert: int, keep: Iterable[int]) -> None:
        before = self.slots.take(expert, [*keep, *self._arriving])
        if before >= 0:
            self.forget(before)

    def _drop(self, expert: int) -> None:
        del self._arriving[expert]
        self.slots.free(expert)

    def _slot(self, expert: int) -> Memory:
        first = int(self.slots.slot_of[expert]) * self.room
        return self._memory[first : first + self.room]
