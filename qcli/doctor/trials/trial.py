"""What a trial is, and what trials are made of: plans, rows of random numbers, and how far two results are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quant.batch import Batch
from quant.jit import Kernel
from quant.kernels.columns import quantize
from quant.plan import Activation, Plan
from quant.team import Team

TOKENS: Final = 5  # where the number does not matter
_THREADS: Final = 2
_TOLERANCE: Final = 1e-5  # of the largest number; float32 sums of hundreds of products err by 1e-6

Floats = NDArray[np.float32]


class Experiment(NamedTuple):
    """All kernels that it calls, and what gives an error for each that is judged: above 1 is wrong, as is no number."""

    kernels: Iterable[Kernel]
    errors: Callable[[], Sequence[float]]


class Trial(NamedTuple):
    """Kernels that are held against their twins, in the order in which they work, and what sets up the experiment.

    Each is judged by what it makes of what was really there before it, so that an error is that of one kernel.
    """

    kernels: tuple[Kernel, ...]
    set_up: Callable[[], Experiment]


def normal(seed: int, *shape: int) -> Floats:
    """Random float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def new_plan(tokens: int, *hooks: object, stepwise: bool = False) -> Plan:
    """A plan for two threads."""
    return Plan(tokens, _THREADS, Batch(), *hooks, stepwise=stepwise)


def given(values: Floats) -> Activation:
    """Rows [tokens, columns] that are there already, in float32."""
    rows = result(*values.shape)
    rows.values[:] = values
    return rows


def quantized(plan: Plan, values: Floats) -> Activation:
    """The same, which a record of the plan writes as its readers ask."""
    rows = given(values)
    quantize(plan, rows)
    return rows


def result(tokens: int, columns: int) -> Activation:
    """Rows that a kernel writes in float32."""
    rows = Activation(tokens, columns)
    rows.read("f32")
    return rows


def replay(plan: Plan, position: int = 0, deferred: int = 0, tokens: int | None = None) -> None:
    """Replay a plan once, with as many tokens as it takes unless told."""
    crew, compiled = Team(plan.threads), plan.compile()
    try:
        plan.batch.set(plan.tokens if tokens is None else tokens, position, deferred)
        crew.run(compiled)
    finally:
        crew.close()


def experiment(plan: Plan, *errors: Callable[[], float], position: int = 0, deferred: int = 0) -> Experiment:
    """That of one replay, after which the errors are asked for."""

    def run() -> list[float]:
        replay(plan, position, deferred)
        return [each() for each in errors]

    return Experiment(plan.kernels, run)


def error(found: Any, expected: Any, tolerance: float = _TOLERANCE) -> float:
    """The largest difference, in parts of what is tolerated of the largest number; infinite where something is no number."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / (tolerance * max(np.abs(expected).max(), 1e-30)))


def unlike(found: Any, expected: Any) -> float:
    """0 where both are the same, to the bit; else infinite."""
    same = np.array_equal(np.asarray(found), np.asarray(expected))
    return 0.0 if same else float("inf")
