"""How large the inputs of each weight are: an observer that adds up the squares of every activation row.

For matrices that all tokens share, and for each expert by itself. A plan without the observer has no such records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.batch import BATCH
from quant.jit import kernel
from quant.kernels.assignments import ASSIGNMENTS, Assignments, pair_at, start_and_count
from quant.kernels.observer import InputObserver
from quant.kernels.partition import start_of
from quant.plan import Activation, Plan, aligned
from quant.simd import fma, load_f32x16, load_i64, store_f32x16, store_i64


@dataclass(frozen=True, eq=False)
class Squares:
    """Of the inputs of one weight: sums float32 [experts, columns], rows counted int64 [experts]; dense: one expert."""

    sums: NDArray[np.float32]
    counts: NDArray[np.int64]


@kernel
def add_squares(rank, size, x, stride, columns, assignments, sums, counts, batch):
    """sums [experts, columns] += the squares of each expert's rows of x; threads share columns, in one order of rows."""
    parts, k = columns // 16, load_i64(assignments + ASSIGNMENTS.k)
    first, last = 16 * start_of(rank, size, parts), 16 * start_of(rank + 1, size, parts)
    for expert in range(load_i64(assignments + ASSIGNMENTS.experts)):
        start, count = 0, load_i64(batch + BATCH.tokens)
        if load_i64(assignments + ASSIGNMENTS.starts):
            start, count = start_and_count(assignments, expert)
        total = sums + 4 * expert * columns
        for i in range(start, start + count):
            row = x + pair_at(assignments, i) // k * stride
            for c in range(first, last, 16):
                values = load_f32x16(row + 4 * c)
                store_f32x16(total + 4 * c, fma(values, values, load_f32x16(total + 4 * c)))
        if rank == 0:
            store_i64(counts + 8 * expert, load_i64(counts + 8 * expert) + count)


class InputSquares(InputObserver):
    """Fills `squares`, by the name of the weight, at every replay of one plan."""

    def __init__(self) -> None:
        self.squares: dict[str, Squares] = {}

    def before_product(
        self, plan: Plan, names: Sequence[str], x: Activation, assignments: Assignments | None = None
    ) -> None:
        """Add a record for these weights, which have the same inputs; a weight without a name goes uncounted."""
        new = [name for name in dict.fromkeys(names) if name and name not in self.squares]
        if not new or x.columns % 16:
            return
        given = assignments or Assignments(1)
        found = Squares(aligned((given.experts, x.columns), np.float32), aligned(given.experts, np.int64))
        self.squares.update(dict.fromkeys(new, found))
        rows = x.read("f32"), x.stride("f32"), x.columns
        plan.add(add_squares, *rows, given.table(plan), found.sums, found.counts, plan.batch)
