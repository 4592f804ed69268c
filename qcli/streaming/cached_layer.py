"""The cached experts of one layer: slots of memory, reads into them, and the addresses at which kernels find experts.

An expert is loaded in two steps: `begin_load` evicts another from its slot and queues the read, `finish_load` waits and
lets kernels find it. An expert that is evicted loses its address at once. `DecodeLoads` and `PrefillLoads` decide what is
loaded, `Slots` what is evicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.host.pages import PAGE, allocate_pages, release_pages
from qcli.streaming.reader import Reader, ReadRequest, Span, buffer_bytes
from qcli.streaming.slots import Slots
from qcli.streaming.source import ExpertSource
from quant.kernels.experts import GatedExperts
from quant.plan import Ids
from quant.weights import ExpertMatrices

Buffer = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ExpertMatrix:
    """Gate, up or down of every expert of a layer: where each lies in a file, and the table of addresses of kernels."""

    experts: ExpertMatrices  # its `addresses` int64 [experts] are the table; 0: not in memory
    path: Path
    offsets: Ids  # in the file, int64 [experts]
    n_bytes: int  # of one expert's matrix
    start: int  # byte of a slot at which its buffer begins

    @classmethod
    def of(cls, source: ExpertSource, experts: ExpertMatrices, start: int) -> ExpertMatrix:
        """From now on no kernel reads these experts from the mapped file."""
        path, offsets = source.locate(experts)
        experts.addresses[:] = 0
        return cls(experts, path, offsets, experts.bytes, start)

    @property
    def end(self) -> int:
        """Byte of a slot at which its buffer ends."""
        return self.start + buffer_bytes(self.n_bytes)

    def span(self, expert: int, slot: Buffer) -> Span:
        """What to read of an expert into a slot, uint8 [slot_bytes]."""
        return Span(self.path, int(self.offsets[expert]), self.n_bytes, slot[self.start : self.end])

    def set_address(self, expert: int, slot: int) -> None:
        """Let kernels find an expert in the slot at this address; 0: nowhere."""
        self.experts.addresses[expert] = slot and slot + self.start + self.offsets[expert] % PAGE


class CachedLayer:
    """Experts of one layer; there are no slots before `allocate`."""

    def __init__(self, source: ExpertSource, experts: GatedExperts) -> None:
        self.name = experts.name
        matrices: list[ExpertMatrix] = []
        for part in experts.matrices:
            matrices.append(ExpertMatrix.of(source, part, matrices[-1].end if matrices else 0))
        self.matrices = tuple(matrices)
        self.slot_bytes = matrices[-1].end  # of memory, for gate, up and down of one expert
        self.expert_bytes = sum(matrix.n_bytes for matrix in matrices)  # in the file
        self.expert_count = experts.up.count
        self.slots = Slots(self.expert_count, 1)
        self._memory: Buffer = allocate_pages(0)
        self._loads: dict[int, ReadRequest] = {}  # by expert, oldest first: begun and not finished
        self._prefetched: list[int] = []  # experts whose load was begun as a guess, since the last `cancel_prefetches`

    def allocate(self, slots: int, memory: Buffer | None = None) -> None:
        """Have so many slots, all free; memory: uint8 [slots * slot_bytes] to use instead of its own."""
        usage = self.slots.usage
        self.slots = Slots(self.expert_count, slots)
        self.slots.usage = usage
        self._memory = allocate_pages(len(self.slots.expert_in) * self.slot_bytes) if memory is None else memory

    def is_loaded(self, expert: int) -> bool:
        """Whether kernels find the expert in memory."""
        return bool(self.matrices[0].experts.addresses[expert])

    def pending_load(self, expert: int) -> ReadRequest | None:
        """The read of a load that is not finished; one that failed is dropped, and its slot is free again."""
        request = self._loads.get(expert)
        if request and request.done and request.error:
            self._drop_load(expert)
            return None
        return request

    def begin_load(self, reader: Reader, expert: int, pinned: Iterable[int], urgent: bool = True) -> ReadRequest:
        """Begin to read an expert into a slot of its own, evicting another that is not in `pinned`.

        Raises LookupError if every slot belongs to a pinned expert, or to one that is being read.
        """
        self._take_slot(expert, pinned)
        request = reader.read(self.spans(expert, self._slot(expert)), urgent)
        self._loads[expert] = request
        return request

    def finish_load(self, expert: int) -> None:
        """If a load of the expert is pending, wait for it and let kernels find it. Raises ModelFileError if it failed."""
        if request := self._loads.get(expert):
            request.join()  # Ctrl-C may end this: the load is still pending
            if request.error:
                self._drop_load(expert)
                raise request.error
            del self._loads[expert]
            self.set_address(expert, self._slot(expert))

    def finish_oldest_load(self) -> None:
        """Wait for the pending load that was begun first."""
        self.finish_load(next(iter(self._loads)))

    def prefetch(self, reader: Reader, expert: int, pinned: Iterable[int]) -> ReadRequest:
        """As `begin_load`, in the background, for an expert that may not be needed."""
        request = self.begin_load(reader, expert, pinned, urgent=False)
        self._prefetched.append(expert)
        return request

    def cancel_prefetches(self, reader: Reader, needed: Sequence[int]) -> int:
        """Cancel prefetches of experts that are not needed, unless their reads have begun; returns the bytes not read."""
        cancelled = 0
        for expert in self._prefetched:
            request = self._loads.get(expert)
            if request and expert not in needed and reader.cancel(request):
                self._drop_load(expert)
                cancelled += request.n_bytes
        self._prefetched.clear()
        return cancelled

    def insert(self, expert: int, memory: Buffer, pinned: Iterable[int]) -> None:
        """Copy an expert from other memory [slot_bytes] into a slot of its own. Raises LookupError as `begin_load`."""
        self._take_slot(expert, pinned)
        self._slot(expert)[:] = memory
        self.set_address(expert, self._slot(expert))

    def resize(self, reader: Reader, slots: int) -> None:
        """Use so many of the allocated slots; memory of the others goes back to the system.

        Reads that no I/O thread has begun are cancelled if slots go; experts that are being read keep theirs.
        """
        if slots < self.slots.available:
            self._cancel_loads(reader)
        with suppress(LookupError):
            while self.slots.available > slots:
                slot, evicted = self.slots.close([*self._loads])
                if evicted >= 0:
                    self.clear_address(evicted)
                release_pages(self._memory, slot * self.slot_bytes, self.slot_bytes)
        while self.slots.available < min(slots, len(self.slots.expert_in)):
            self.slots.reopen()

    def spans(self, expert: int, memory: Buffer) -> list[Span]:
        """What to read of an expert into memory [slot_bytes]: gate, up and down."""
        return [matrix.span(expert, memory) for matrix in self.matrices]

    def set_address(self, expert: int, memory: Buffer) -> None:
        """Let kernels find an expert that was read into this memory [slot_bytes]."""
        address = memory.ctypes.data
        for matrix in self.matrices:
            matrix.set_address(expert, address)

    def clear_address(self, expert: int) -> None:
        """Let no kernel find the expert."""
        for matrix in self.matrices:
            matrix.set_address(expert, 0)

    def _take_slot(self, expert: int, pinned: Iterable[int]) -> None:
        evicted = self.slots.assign(expert, [*pinned, *self._loads])
        if evicted >= 0:
            self.clear_address(evicted)

    def _slot(self, expert: int) -> Buffer:
        first = int(self.slots.slot_of[expert]) * self.slot_bytes
        return self._memory[first : first + self.slot_bytes]

    def _drop_load(self, expert: int) -> None:
        del self._loads[expert]
        self.slots.release(expert)

    def _cancel_loads(self, reader: Reader) -> None:
        for expert, request in list(self._loads.items()):
            if reader.cancel(request):
                self._drop_load(expert)
