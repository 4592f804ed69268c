"""A sealed plan, ready to be replayed: one array of records, or several where Python has something to do in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.plan import Plan, Turns

Replay = Callable[[NDArray[np.int64], list[str]], None]  # records, and the part of the model that each belongs to


@dataclass(frozen=True, eq=False)
class Program:
    """Stages in order: their records, the parts of the model, and what calls their turns, if not once."""

    plan: Plan  # keeps the memory whose addresses the records hold
    stages: list[tuple[NDArray[np.int64], list[str], Turns | None]]

    @classmethod
    def of(cls, plan: Plan) -> Program:
        """Compile the kernels and resolve every operand."""
        records = plan.seal()
        return cls(plan, [(records[part], plan.parts[part], turns) for part, turns in plan.stages()])

    def run(self, replay: Replay) -> None:
        """Replay every stage, as often as it has turns."""
        for records, parts, turns in self.stages:
            for _ in (None,) if turns is None else turns():
                replay(records, parts)
