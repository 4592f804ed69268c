"""Watching what weights are multiplied with: a hook of a plan (see quant.plan), asked while the plan is traced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from quant.kernels.assignments import Assignments
from quant.plan import Activation, Plan


class InputObserver(ABC):
    """May add records of its own before weights are multiplied."""

    @abstractmethod
    def before_product(
        self, plan: Plan, names: Sequence[str], x: Activation, assignments: Assignments | None = None
    ) -> None:
        """The weights of these names are multiplied next, with rows of x: all rows, or each expert's with its own."""


def observe(plan: Plan, names: Sequence[str], x: Activation, assignments: Assignments | None = None) -> None:
    """Tell the plan's observer, if it has one."""
    observer: InputObserver | None = plan.hook(InputObserver)
    if observer:
        observer.before_product(plan, names, x, assignments)
