"""A compiled plan, ready to be replayed: one array of records, or several where Python has something to do in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.plan import Plan, StageCallback

ReplayRecords = Callable[[NDArray[np.int64], list[str]], None]  # the records, and the part of the model of each


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

    def replay(self, replay_records: ReplayRecords) -> None:
        """Have the records of every stage replayed, in order, as often as the stage's callback yields."""
        for records, parts, callback in self.stages:
            for _ in (None,) if callback is None else callback():
                replay_records(records, parts)
