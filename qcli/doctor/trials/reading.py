"""Reads of files without the interpreter: the queue and its threads, which expert gets which slot, and loads into slots."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import numpy as np

from qcli.doctor.trials.trial import Experiment, Floats, Trial, error, normal, unlike
from qcli.doctor.twins import slots as twin
from qcli.host.pages import allocate_pages
from qcli.host.temporary import temporary_folder
from qcli.streaming.cached_layer import CachedLayer
from qcli.streaming.reader import Reader, buffer_bytes
from qcli.streaming.slots import Slots
from quant import read_queue, system_calls
from quant.formats import find
from quant.kernels.expert_loads import TOKEN, begin_load, cancel_load, clock, end_load
from quant.kernels.expert_slots import count_usage, find_slot
from quant.kernels.experts import GatedExperts
from quant.plan import Ids
from quant.read_queue import PAGE, QUEUE, READ, SPAN, cancel, close, prioritize, serve, submit
from quant.weights import ExpertMatrices

_PATIENCE: Final = 2.0  # seconds for a read of a few kilobytes
_SIDE, _COUNT = 32, 4  # of each matrix of an expert
_BYTES: Final = 4 * _SIDE * _SIDE
_NAMES: Final = ("gate", "up", "down")
_OFFSET: Final = 100  # of the first one in the file


class ExpertFile:
    """Gate, up and down of some experts in a file, one behind the other, as an ExpertSource."""

    def __init__(self, folder: Path, parts: Sequence[Floats]) -> None:
        """parts: float32 [experts, rows, columns] each."""
        self.paths, self._parts = [folder / "experts"], parts
        raw = [np.zeros(_OFFSET, np.uint8), *(part.reshape(-1).view(np.uint8) for part in parts)]
        self.bytes = np.concatenate(raw)
        self.paths[0].write_bytes(self.bytes.tobytes())

    def matrices(self) -> GatedExperts:
        """The experts, which are not in memory."""
        gate, up, down = (self._unread(part, name) for part, name in zip(self._parts, _NAMES, strict=True))
        return GatedExperts(gate, up, down)

    def _unread(self, part: Floats, name: str) -> ExpertMatrices:
        count, rows, columns = part.shape
        return ExpertMatrices(np.zeros(count, np.int64), find("F32"), rows, columns, None, name)

    def locate(self, experts: ExpertMatrices) -> tuple[Path, Ids]:
        """See qcli.streaming.source."""
        part = _NAMES.index(experts.name)
        begin = _OFFSET + sum(before.nbytes for before in self._parts[:part])
        return self.paths[0], begin + self._parts[part][0].nbytes * np.arange(len(self._parts[part]))

    def misread(self, layer: CachedLayer, expert: int) -> float:
        """0 where kernels find each matrix of an expert as it is in the file, else infinite."""
        wrong = []
        for part in layer.matrices:
            address, begin = int(part.experts.addresses[expert]), int(part.offsets[expert])
            there = ctypes.string_at(address, part.experts.bytes) if address else b""
            wrong.append(unlike(there, self.bytes[begin : begin + part.experts.bytes].tobytes()))
        return max(wrong)


def comes(ready: Callable[[], bool]) -> bool:
    """Wait until something is ready; whether it was before one would give up."""
    until = monotonic() + _PATIENCE
    while not ready() and monotonic() < until:
        sleep(0.0002)
    return ready()


def _read(spans: int = 1) -> Ids:
    words: Ids = np.zeros((READ.bytes + spans * SPAN.bytes) // 8, np.int64)
    words[READ.spans // 8] = spans
    return words


def _queue() -> Experiment:
    """Reads are appended, moved and taken back while no thread serves the queue."""

    def errors() -> list[float]:
        calls = system_calls.table()
        queue, reads = read_queue.new_queue(calls), [_read() for _ in range(4)]
        address, (a, b, c, d) = queue.ctypes.data, (read.ctypes.data for read in reads)
        for read, urgent in ((a, 0), (b, 0), (c, 1), (d, 0)):
            submit(address, read, urgent)
        wrong = [unlike(_ends(queue), [c, c, a, d])]
        prioritize(address, b)
        wrong.append(unlike(_ends(queue), [c, b, a, d]))
        taken = [cancel(address, read) for read in (d, b)]
        wrong.append(unlike([*taken, *_ends(queue)], [1, 0, c, b, a, a]))
        close(address)
        return [*wrong, unlike(queue[QUEUE.closed // 8], 1)]

    return Experiment((submit, prioritize, cancel, close), errors)


def _ends(queue: Ids) -> list[int]:
    """The first and the last read of the urgent ones and of those of the background."""
    fields = QUEUE.urgent, QUEUE.urgent_last, QUEUE.background, QUEUE.background_last
    return [int(queue[field // 8]) for field in fields]


def _serving() -> Experiment:
    """A thread reads two spans of a file, and ends when the queue is closed."""
    read, content, halves = (
        _read(2),
        normal(1, 3000).view(np.uint8),
        allocate_pages(2 * buffer_bytes(5000)).reshape(2, -1),
    )
    offsets = 10, 6000

    def errors() -> list[float]:
        with temporary_folder() as folder:
            path = folder / "content"
            path.write_bytes(content.tobytes())
            with Reader([path]) as reader:
                for span, offset, half in zip(read[READ.bytes // 8 :].reshape(2, -1), offsets, halves, strict=True):
                    span[:] = reader.number_of(path), offset, 5000, half.ctypes.data
                submit(reader.queue, read.ctypes.data, 1)
                done = comes(lambda: not read[READ.left // 8])
        found = [half[offset % PAGE :][:5000] for half, offset in zip(halves, offsets, strict=True)]
        return [unlike(found, [content[10:5010], content[6000:11000]]) if done else float("inf")]

    return Experiment((serve, submit, close), errors)


def _slots() -> Experiment:
    """Usage that is counted, and the slot of the least used expert that may leave."""
    slots, chosen, times, growth = Slots(6, 4), np.array([4, 1, 5]), np.array([3, 1, 2]), 1.25
    slots.expert_in[:] = 4, 1, 5, 0
    slots.slot_of[[4, 1, 5, 0]] = range(4)
    slots.usage = np.array([9, 2, 0, 0, 1, 3], np.float32)
    usage, weight = twin.count_usage(slots.usage, 1.0, chosen, times, growth)

    def errors() -> list[float]:
        count_usage(slots.table.ctypes.data, chosen.ctypes.data, times.ctypes.data, 3, growth)
        counted = error(slots.usage, usage / weight)
        found = []
        for pinned in ([], [1], [0, 1, 4, 5]):
            slots.pin(pinned)
            found.append(find_slot(slots.table.ctypes.data))
            slots.pin(pinned, False)
        expected = [twin.find_slot(slots.expert_in, usage, pinned) for pinned in ([], [1], [0, 1, 4, 5])]
        return [counted, unlike(found, expected)]

    return Experiment((count_usage, find_slot), errors)


def _loads() -> Experiment:
    """An expert is read into a slot, and one's read is taken back before any thread has begun it."""
    parts = [normal(seed, _COUNT, _SIDE, _SIDE) for seed in range(3)]

    def errors() -> list[float]:
        with temporary_folder() as folder:
            file = ExpertFile(folder, parts)
            counts: Ids = np.zeros(len(TOKEN.names), np.int64)
            with Reader(file.paths) as reader:
                layer = CachedLayer(file, file.matrices(), reader, counts, 1)
                layer.allocate(2)
                begun = begin_load(layer.table.ctypes.data, 3, 1)
                done = comes(lambda: layer.pending_load(3) is None)
                wrong = [unlike(begun, 1), file.misread(layer, 3) if done else float("inf")]
            begin_load(layer.table.ctypes.data, 1, 0)  # nobody reads any more
            before = layer.slots.slot_of.tolist()
            taken = cancel_load(layer.table.ctypes.data, 1)
            after = layer.slots.slot_of.tolist()
        wrong[0] = max(wrong[0], unlike(before, [-1, 1, -1, 0]))
        return [*wrong, unlike([taken, *after], [1, -1, -1, -1, 0])]

    return Experiment((begin_load, end_load, cancel_load, *read_queue.KERNELS, find_slot), errors)


def _clock() -> Experiment:
    """It goes on."""

    def errors() -> list[float]:
        began = clock()
        sleep(0.001)
        return [0.0 if clock() > began > 0 else float("inf")]

    return Experiment((clock,), errors)


TRIALS: Final = (
    Trial((submit, prioritize, cancel, close), _queue),
    Trial((serve,), _serving),
    Trial((count_usage, find_slot), _slots),
    Trial((begin_load, end_load, cancel_load), _loads),
    Trial((clock,), _clock),
)
