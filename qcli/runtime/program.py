"""A compiled plan, ready to be replayed: one array of records, or several where Python has something to do in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.plan import Plan, StageCallback

Replay = Callable[[NDArray[np.int64], list[str]], None]  # records, and the part of the model that each belongs to


@dataclass(frozen=True, eq=False)
class Program:
    """Stages in order: their records, the parts of the model, and the callback of those that are not replayed once."""

    plan: Plan  # keeps the memory whose addresses the records hold
    stages: list[tuple[NDArray[np.int64], list[str], StageCallback | None]]

    @classmethod
    def of(cls, plan: Plan) -> Program:
        """Compile the kernels and resolve every operand."""
        records = plan.compile()
        return cls(plan, [(records[part], plan.parts[part], callback) for part, callback in plan.stages()])

    def run(self, replay: Replay) -> None:
        """Replay every stage, as often as its callback yields."""
        for records, parts, callback in self.stages:
            for _ in (None,) if callback is None else callback():
                replay(records, parts)
