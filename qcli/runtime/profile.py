"""Where the time of replays goes, by part of the model, as the first thread of the team sees it."""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from quant.team import Team


class PartTimes:
    """Replays plans and adds up, for each of their records, the time at work and the time waiting."""

    def __init__(self) -> None:
        self.seconds = 0.0  # of all replays
        self._noted: dict[int, tuple[list[str], NDArray[np.int64]]] = {}

    def replay(self, team: Team, plan: NDArray[np.int64], parts: list[str]) -> None:
        """Replay a compiled plan; parts: of the model, one name a record."""
        _, ticks = self._noted.setdefault(id(plan), (parts, np.zeros((len(parts), 2), np.int64)))
        began = perf_counter()
        team.run(plan, ticks)
        self.seconds += perf_counter() - began

    def by_part(self) -> dict[str, tuple[float, float]]:
        """Seconds of each part: at work, and waiting for other threads at the end of its records; in all `seconds`."""
        ticks: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(2, np.int64))
        for parts, noted in self._noted.values():
            for part, counts in zip(parts, noted, strict=True):
                ticks[part] += counts
        second = float(sum(counts.sum() for counts in ticks.values())) / self.seconds if self.seconds else 1.0
        return {part: (work / second, wait / second) for part, (work, wait) in ticks.items()}
