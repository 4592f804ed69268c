"""A compiled plan, ready to be replayed: one array of records, or several where Python has something to do in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from quant.plan import Plan, StageCallback

ReplayRecords = Callable[[NDArray[np.int64], list[str]], None]  # the records, and the part of the model of each

OFTEN = 0.1  # seconds from one word on how far it is to the next


@dataclass(frozen=True, eq=False)
class Program:
    """The stages of a plan in order: the records of each, the part of the model that each record belongs to, and a
    callback that replays the stage at each of its yields; None: once."""

    plan: Plan  # keeps the memory alive whose addresses are in the records
    stages: list[tuple[NDArray[np.int64], list[str], StageCallback | None]]

    @classmethod
    def of(cls, plan: Plan) -> Program:
        """Compile a plan: load its kernels and write the address of every operand into its records."""
        records = plan.compile()
        return cls(plan, [(records[part], plan.parts[part], callback) for part, callback in plan.stages()])

    def replay(
        self, replay_records: ReplayRecords, told: Callable[[float], None] | None = None, often: float = OFTEN
    ) -> None:
        """Have the records of every stage replayed, in order, as often as the stage's callback yields.

        told(fraction of the records that are done) is called in between, about every `often` seconds: the records are the
        same, and in the same order, but handed over a few at a time; whoever is told may raise.
        """
        done = reached = 0
        whole, pace = sum(len(records) for records, _, _ in self.stages), Pace(often)
        for records, parts, callback in self.stages:
            for _ in (None,) if callback is None else callback():
                if told is None:
                    replay_records(records, parts)
                    continue
                for piece in pace.pieces(len(records)):
                    replay_records(records[piece], parts[piece])
                    reached = max(reached, done + piece.stop)  # a stage may begin again
                    told(reached / whole)
            done += len(records)


class Pace:
    """How many records make up the time after which progress is told: first one, then as many as their speed allows."""

    def __init__(self, often: float = OFTEN, clock: Callable[[], float] = perf_counter) -> None:
        """often: seconds."""
        self._often, self._clock = often, clock
        self._count = 1

    def pieces(self, records: int) -> Iterator[slice]:
        """Cut so many records into pieces; what is done with a piece until the next is asked for is what it takes."""
        first = 0
        while first < records:
            piece = slice(first, min(first + self._count, records))
            began = self._clock()
            yield piece
            seconds = self._clock() - began
            if seconds < self._often / 2 and piece.stop - first == self._count:
                self._count *= 2
            elif seconds > 2 * self._often:
                self._count = max(1, self._count // 2)
            first = piece.stop
