"""The cached experts of one layer: slots of memory, reads into them, and the addresses at which kernels find experts.

An expert is loaded by a read into a slot, from which another is evicted; kernels find it from the moment when the last byte
is there. An expert that is evicted loses its address at once. What tokens need is loaded by kernels
(`quant.kernels.expert_requests`), which share the arrays of this layer; `PrefillLoads` decides what is loaded for prompts,
`Slots` what is evicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError
from qcli.host.pages import allocate_pages, release_pages
from qcli.streaming.reader import Reader, ReadRequest, Span, buffer_bytes
from qcli.streaming.slots import Slots, growth
from qcli.streaming.source import ExpertSource
from quant.kernels.expert_loads import CACHED, EXPERT_READ_BYTES, PART, begin_load, cancel_load, end_load
from quant.kernels.experts import GatedExperts
from quant.plan import Ids, aligned
from quant.read_queue import PAGE, READ, SPAN
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

    def __init__(self, source: ExpertSource, experts: GatedExperts, reader: Reader, token: Ids, k: int) -> None:
        """token: the table of TOKEN that layers share; k: experts that a token chooses."""
        self.name = experts.name
        matrices: list[ExpertMatrix] = []
        for part in experts.matrices:
            matrices.append(ExpertMatrix.of(source, part, matrices[-1].end if matrices else 0))
        self.matrices = tuple(matrices)
        self.slot_bytes = matrices[-1].end  # of memory, for all matrices of one expert
        self.expert_bytes = sum(matrix.n_bytes for matrix in matrices)  # in the file
        self.expert_count = experts.up.count
        self.slots = Slots(self.expert_count, 1)
        self._reader = reader
        self._memory: Buffer = allocate_pages(0)
        self._reads: Ids = aligned((self.expert_count, EXPERT_READ_BYTES // 8), np.int64)  # a table of READ each
        self._guessed: Ids = np.zeros(self.expert_count, np.int64)
        self._kept = token
        self.table: Ids = np.zeros(len(CACHED.names), np.int64)
        self._set(token=token.ctypes.data, queue=reader.queue, guessed=self._guessed.ctypes.data)
        self._set(slot_bytes=self.slot_bytes, expert_bytes=self.expert_bytes, reads=self._reads.ctypes.data)
        fields = [{"addresses": part.experts.addresses.ctypes.data, "start": part.start} for part in matrices]
        self._parts: Ids = np.array([PART.in_order(values) for values in fields], np.int64)
        self._set(parts=self._parts.ctypes.data, part_count=len(matrices))
        self.table[CACHED.growth // 8 :].view(np.float32)[0] = growth(k)
        reader.keep(self)

    def allocate(self, slots: int, memory: Buffer | None = None) -> None:
        """Have so many slots, all free; memory: uint8 [slots * slot_bytes] to use instead of its own."""
        usage = self.slots.usage
        self.slots = Slots(self.expert_count, slots)
        self.slots.usage = usage
        self._memory = allocate_pages(len(self.slots.expert_in) * self.slot_bytes) if memory is None else memory
        self._set(slots=self.slots.table.ctypes.data, memory=self._memory.ctypes.data)
        reads = self._reads
        reads[:, READ.spans // 8], reads[:, READ.then // 8] = len(self.matrices), end_load.address
        reads[:, READ.owner // 8], reads[:, READ.number // 8] = self.table.ctypes.data, np.arange(self.expert_count)
        for i, matrix in enumerate(self.matrices):
            span = reads[:, (READ.bytes + i * SPAN.bytes) // 8 :]
            span[:, SPAN.file // 8], span[:, SPAN.size // 8] = self._reader.number_of(matrix.path), matrix.n_bytes
            span[:, SPAN.offset // 8] = matrix.offsets

    def is_loaded(self, expert: int) -> bool:
        """Whether kernels find the expert in memory."""
        return bool(self.matrices[0].experts.addresses[expert])

    def pending_load(self, expert: int) -> ReadRequest | None:
        """The read into the expert's slot, if it is not done."""
        request = self._request(expert)
        return None if request.done else request

    def begin_load(self, expert: int, pinned: Sequence[int], urgent: bool = True) -> ReadRequest:
        """Begin to read an expert into a slot of its own, evicting another that is not in `pinned`.

        Raises LookupError if every slot belongs to a pinned expert, or to one that is being read.
        """
        self.slots.pin(pinned)
        begun = begin_load(self.table.ctypes.data, expert, urgent)
        self.slots.pin(pinned, False)
        if not begun:
            raise LookupError("every slot belongs to a pinned expert")
        return self._request(expert)

    def finish_load(self, expert: int) -> None:
        """Wait for the read of an expert whose load was begun. Raises ModelFileError if it is not in memory then."""
        request = self._request(expert)
        request.join()
        if not self.is_loaded(expert) and (error := request.error):
            raise error

    def drop_failed(self) -> ModelFileError | None:
        """Forget experts that kernels find although their bytes could not be read; why, or None if there are none."""
        error = None
        ended = self._reads[:, READ.left // 8] == 0
        for expert in np.flatnonzero(ended & (self._reads[:, READ.error // 8] != 0)).tolist():
            error = self._request(expert).error
            self._reads[expert, READ.error // 8] = 0
            if self.is_loaded(expert):
                self.clear_address(expert)
                self.slots.release(expert)
        return error

    def insert(self, expert: int, memory: Buffer, pinned: Sequence[int]) -> None:
        """Copy an expert from other memory [slot_bytes] into a slot of its own. Raises LookupError as `begin_load`."""
        evicted = self.slots.assign(expert, pinned)
        if evicted >= 0:
            self.clear_address(evicted)
        first = int(self.slots.slot_of[expert]) * self.slot_bytes
        slot = self._memory[first : first + self.slot_bytes]
        slot[:] = memory
        self.set_address(expert, slot)

    def resize(self, slots: int) -> None:
        """Use so many of the allocated slots; memory of the others goes back to the system.

        Reads that no I/O thread has begun are cancelled if slots go; experts that are being read keep theirs.
        """
        if slots < self.slots.available:
            for expert in np.flatnonzero(self.slots.loading).tolist():
                cancel_load(self.table.ctypes.data, expert)
        with suppress(LookupError):
            while self.slots.available > slots:
                slot, evicted = self.slots.close()
                if evicted >= 0:
                    self.clear_address(evicted)
                release_pages(self._memory, slot * self.slot_bytes, self.slot_bytes)
        while self.slots.available < min(slots, len(self.slots.expert_in)):
            self.slots.reopen()

    def spans(self, expert: int, memory: Buffer) -> list[Span]:
        """What to read of an expert into memory [slot_bytes]: each of its matrices."""
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

    def _request(self, expert: int) -> ReadRequest:
        return ReadRequest(self._reader, self._reads[expert])

    def _set(self, **fields: int) -> None:
        for name, value in fields.items():
            self.table[getattr(CACHED, name) // 8] = value
