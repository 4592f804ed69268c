"""Where the time of replays goes, by part of the model, as the first thread of the team sees it."""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from quant.team import Team

WAITING = "waiting"  # for other threads, at the end of each record


class PartTimes:
    """Replays plans and adds up, for each of their records, the time at work and the time waiting."""

    def __init__(self) -> None:
        self.seconds = 0.0  # of all replays
        self._noted: dict[int, tuple[list[str], NDArray[np.int64]]] = {}

    def replay(self, team: Team, plan: NDArray[np.int64], parts: list[str]) -> None:
        """Replay a sealed plan; parts: of the model, one name a record."""
        _, ticks = self._noted.setdefault(id(plan), (parts, np.zeros((len(parts), 2), np.int64)))
        began = perf_counter()
        team.run(plan, ticks)
        self.seconds += perf_counter() - began

    def by_part(self) -> dict[str, float]:
        """Seconds of each part, then of waiting; together they are `seconds`."""
        ticks: dict[str, int] = defaultdict(int)
        for parts, noted in self._noted.values():
            for part, work in zip(parts, noted[:, 0], strict=True):
                ticks[part] += int(work)
        ticks[WAITING] = sum(int(noted[:, 1].sum()) for _, noted in self._noted.values())
        second = sum(ticks.values()) / self.seconds if self.seconds else 1.0
        return {part: count / second for part, count in ticks.items()}
