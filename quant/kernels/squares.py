"""How large the inputs of each weight are: a plan that adds up the squares of every activation its weights meet.

For matrices that many tokens share, and, with `Groups`, for each expert by itself. An ordinary plan has no such records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.jit import kernel
from quant.kernels.share import first_of
from quant.plan import Activation, Groups, Plan, aligned
from quant.simd import fma, load_f32x16, load_i64, store_f32x16, store_i64


@dataclass(frozen=True, eq=False)
class Squares:
    """Of what one weight has met: sums float32 [experts, columns], rows counted int64 [experts]; dense: one expert."""

    sums: NDArray[np.float32]
    counts: NDArray[np.int64]


@kernel
def add_squares(rank, size, x, stride, columns, count, k, starts, slots, sums, counts, run):
    """sums [count, columns] += the squares of each expert's rows of x; threads share columns, in one order of rows."""
    parts = columns // 16
    first, last = 16 * first_of(rank, size, parts), 16 * first_of(rank + 1, size, parts)
    for expert in range(count):
        begin, end = 0, load_i64(run)
        if starts:
            begin, end = load_i64(starts + 8 * expert), load_i64(starts + 8 * expert + 8)
        total = sums + 4 * expert * columns
        for i in range(begin, end):
            row = x + (load_i64(slots + 8 * i) // k if slots else i) * stride
            for c in range(first, last, 16):
                values = load_f32x16(row + 4 * c)
                store_f32x16(total + 4 * c, fma(values, values, load_f32x16(total + 4 * c)))
        if rank == 0:
            store_i64(counts + 8 * expert, load_i64(counts + 8 * expert) + end - begin)


class SquaresPlan(Plan):
    """A plan that fills `squares`, by the name of the weight, at every replay."""

    def __init__(self, tokens: int, threads: int, run: NDArray[np.int64]) -> None:
        super().__init__(tokens, threads, run)
        self.squares: dict[str, Squares] = {}

    def watch(self, names: Sequence[str], x: Activation, groups: Groups | None = None) -> None:
        """Add a record for these weights, which meet the same rows; a weight without a name goes uncounted."""
        new = [name for name in dict.fromkeys(names) if name and name not in self.squares]
        if not new or x.columns % 16:
            return
        count = groups.count if groups else 1
        found = Squares(aligned((count, x.columns), np.float32), aligned(count, np.int64))
        self.squares.update(dict.fromkeys(new, found))
        order = (groups.k, groups.starts, groups.slots) if groups else (1, 0, 0)
        rows, stride = x.read("f32"), x.stride("f32")
        self.add(add_squares, rows, stride, x.columns, count, *order, found.sums, found.counts, self.run)
