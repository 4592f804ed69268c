"""This machine's memory bandwidth: a team of threads reads more than the CPU's caches hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from qcli.host.memory import available_memory
from quant.batch import Batch
from quant.kernels.bandwidth import STEP, read_all
from quant.plan import Plan, aligned
from quant.team import Team

MOST = 1 << 30  # bytes that a pass reads, about
_PASSES = 3  # of a sample, 35 ms each at 30 GB/s


class Bandwidth:
    """Measured between the repetitions of a case, because it drifts."""

    def __init__(self, threads: Iterable[int], weights: Sequence[NDArray[np.uint8]] = ()) -> None:
        """threads: the team sizes to measure; weights, uint8 [bytes] each: what to read, else a new buffer."""
        self._sources = _largest(weights) or [_buffer()]
        self._n_bytes = sum(source.nbytes for source in self._sources)
        self._teams = {count: Team(count) for count in threads}
        self._plans = {count: Plan(1, count, Batch()) for count in self._teams}
        for plan in self._plans.values():
            for source in self._sources:
                read_all(plan, source)
        self._compiled = {count: plan.compile() for count, plan in self._plans.items()}

    def sample(self, threads: int) -> float:
        """What this many threads read now, in 10^9 bytes a second: the median of a few passes."""
        self._seconds(threads)  # wakes the threads
        return median(self._n_bytes / self._seconds(threads) for _ in range(_PASSES)) / 1e9

    def close(self) -> None:
        """End the threads."""
        for team in self._teams.values():
            team.close()

    def _seconds(self, threads: int) -> float:
        began = perf_counter()
        self._teams[threads].run(self._compiled[threads])
        return perf_counter() - began


def _buffer() -> NDArray[np.float32]:
    buffer: NDArray[np.float32] = aligned(max(1, min(MOST, available_memory() // 8) // STEP) * STEP // 4, np.float32)
    buffer[:] = 1  # pages that were never written to are all the same physical page
    return buffer


def _largest(weights: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """The largest tensors, uint8 [bytes] each, cut to whole steps, until they add up to MOST bytes."""
    found: list[NDArray[np.float32]] = []
    for tensor in sorted(weights, key=len, reverse=True):
        if sum(source.nbytes for source in found) < MOST and len(tensor) >= STEP:
            found.append(tensor[: len(tensor) // STEP * STEP].view(np.float32))
    return found
