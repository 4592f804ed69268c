"""Memory for experts of a prompt that get no slot: one half is multiplied while the other is read.

Which experts of the next layer a prompt needs is known only when that layer's router has run, but the disk need not idle until
then: of many tokens, nearly every expert is chosen by some. So the first half of the next layer is read ahead while the last
experts of a layer are multiplied. `PrefillLoads` decides what is read, this keeps the memory and the reads into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qcli.host.pages import allocate_pages
from qcli.streaming.cached_layer import Buffer, CachedLayer
from qcli.streaming.reader import Reader, ReadRequest


@dataclass(frozen=True)
class StagedExpert:
    """An expert in staging memory, until its batch is multiplied."""

    expert: int
    memory: Buffer  # [slot_bytes of its layer]
    request: ReadRequest


@dataclass(frozen=True)
class ExpertBatch:
    """Consecutive experts of a layer that are multiplied in one replay."""

    experts: list[int] = field(default_factory=list)  # in ascending order
    missing: list[int] = field(default_factory=list)  # an expert's index here is its place in a half, if it is staged


@dataclass(frozen=True, eq=False)
class Readahead:
    """The first experts of a layer, being read before its router has chosen any."""

    layer: CachedLayer
    half: int  # 0 or 1
    end: int  # experts below it are in memory or have a place in this half
    missing: list[int]  # those that have a place
    staged: dict[int, StagedExpert]  # those of them that are being read


class StagingBuffer:
    """Two halves of memory, the reads into them, and at most one readahead."""

    def __init__(self) -> None:
        self._halves: tuple[Buffer, Buffer] = allocate_pages(0), allocate_pages(0)
        self._requests: tuple[list[ReadRequest], list[ReadRequest]] = [], []  # into each half
        self._readahead: Readahead | None = None

    def allocate(self, half_bytes: int) -> None:
        """Have so many bytes in each half."""
        self._halves = allocate_pages(half_bytes), allocate_pages(half_bytes)

    def join(self, half: int) -> None:
        """Wait until nothing is read into a half any more, for an interrupted prompt or a wrong readahead."""
        for request in self._requests[half]:
            request.join()
        self._requests[half].clear()

    def read(
        self, reader: Reader, layer: CachedLayer, expert: int, half: int, place: int, urgent: bool = True
    ) -> StagedExpert:
        """Begin to read an expert into a half; place: how many experts of the layer fit before it."""
        memory = self._halves[half][place * layer.slot_bytes :][: layer.slot_bytes]
        request = reader.read(layer.spans(expert, memory), urgent)
        self._requests[half].append(request)
        return StagedExpert(expert, memory, request)

    def read_ahead(self, reader: Reader, layer: CachedLayer, likely: NDArray[np.bool_], half: int) -> int:
        """Begin to read a layer's first experts that are not in memory, as many as one half has places for.

        likely: bool [experts], those to be read; the others only keep their places. Returns the bytes to be read.
        """
        missing = [expert for expert in range(layer.expert_count) if not layer.is_loaded(expert)]
        places = len(self._halves[half]) // layer.slot_bytes
        end = missing[places] if places < len(missing) else layer.expert_count
        missing = missing[:places]
        self.join(half)
        self._readahead = readahead = Readahead(layer, half, end, missing, {})
        for place, expert in enumerate(missing):
            if likely[expert] and not layer.pending_load(expert):
                readahead.staged[expert] = self.read(reader, layer, expert, half, place, urgent=False)
        return sum(staged.request.n_bytes for staged in readahead.staged.values())

    def readahead_of(self, layer: CachedLayer) -> Readahead | None:
        """The readahead, if it is of this layer and reads anything."""
        readahead = self._readahead
        return readahead if readahead and readahead.layer is layer and readahead.staged else None

    def end_readahead(self, reader: Reader, needed: list[int]) -> int:
        """Make reads of needed experts urgent, and cancel the others unless they have begun; returns the bytes not read."""
        readahead, self._readahead = self._readahead, None
        if readahead is None:
            return 0
        cancelled = 0
        for expert, staged in readahead.staged.items():
            if expert in needed:
                reader.prioritize(staged.request)
            elif reader.cancel(staged.request):
                self._requests[readahead.half].remove(staged.request)
                cancelled += staged.request.n_bytes
        return cancelled
