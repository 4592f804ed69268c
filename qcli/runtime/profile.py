"""How long each part of a model takes, as the first thread of the team sees it."""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from quant.team import Team


class Profiler:
    """Replays records and adds up, for each of them, the time at work and the time waiting."""

    def __init__(self) -> None:
        self.seconds = 0.0  # of all replays
        self._ticks: dict[int, tuple[list[str], NDArray[np.int64]]] = {}  # by id of the records: int64 [records, 2]

    def replay(self, team: Team, records: NDArray[np.int64], parts: list[str]) -> None:
        """Have the team replay records; parts: of the model, one name a record."""
        _, ticks = self._ticks.setdefault(id(records), (parts, np.zeros((len(parts), 2), np.int64)))
        began = perf_counter()
        team.run(records, ticks)
        self.seconds += perf_counter() - began

    def by_part(self) -> dict[str, tuple[float, float]]:
        """Seconds of each part: at work, and waiting for other threads at the end of its records; together `seconds`."""
        sums: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(2, np.int64))
        for parts, ticks in self._ticks.values():
            for part, pair in zip(parts, ticks, strict=True):
                sums[part] += pair
        ticks_per_s = float(sum(pair.sum() for pair in sums.values())) / self.seconds if self.seconds else 1.0
        return {part: (work / ticks_per_s, wait / ticks_per_s) for part, (work, wait) in sums.items()}
