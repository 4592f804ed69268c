"""This machine's read bandwidth: a buffer far beyond the caches, read by a team of threads."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from time import perf_counter

import numpy as np

from qcli.memory import available
from quant.kernels.bandwidth import STEP, read_all
from quant.plan import Plan, aligned
from quant.team import Team

MOST = 1 << 30  # bytes of the buffer
_PASSES = 3  # of a sample, 35 ms each at 30 GB/s


class Bandwidth:
    """Sampled while other things are measured, because it drifts."""

    def __init__(self, threads: Iterable[int]) -> None:
        size = max(1, min(MOST, available() // 8) // STEP) * STEP
        self._buffer = aligned(size // 4, np.float32)
        self._buffer[:] = 1  # pages that nobody has written to are all the same one
        self._teams = {count: Team(count) for count in threads}
        self._plans = {count: Plan(1, count, np.zeros(2, np.int64)) for count in self._teams}
        for plan in self._plans.values():
            read_all(plan, self._buffer)
        self._sealed = {count: plan.seal() for count, plan in self._plans.items()}

    def sample(self, threads: int) -> float:
        """What so many threads read now, in 10^9 bytes a second."""
        self._seconds(threads)  # wakes them
        return median(self._buffer.nbytes / self._seconds(threads) for _ in range(_PASSES)) / 1e9

    def close(self) -> None:
        """End the threads."""
        for team in self._teams.values():
            team.close()

    def _seconds(self, threads: int) -> float:
        began = perf_counter()
        self._teams[threads].run(self._sealed[threads])
        return perf_counter() - began
