"""Some rows of weights times a few activation rows: each product is made as that of one row is, bit by bit.

So a stepwise plan (see quant.plan) gives every token what a step of its own would, and reads weights once for all.
"""

from __future__ import annotations

from typing import Any

from quant.atomics import call
from quant.jit import inline
from quant.plan import Operand
from quant.simd import load_f32, load_i64
from quant.tile import ENTRY
from quant.weights import MATRIX, ExpertMatrices, Matrix, operands_of

FEW_ROWS = (
    16  # of weights that are multiplied with one activation row, then the next: they stay in the first-level cache
)


def few_operands(weights: Matrix | ExpertMatrices) -> dict[str, Any]:
    """Fields of MATRIX for kernels that multiply rows of weights with a few activation rows."""
    few: Operand = weights.format.dot_few or 0
    return operands_of(weights, dot_few=few)


@inline
def multiply_few(matrix, w, rows, entries, count, accumulate):
    """The rows of weights at w times each of `count` activation rows; entries: a table of ENTRY for each of these.

    Results stand one behind the other from the entry's result on, added to what is there if accumulate is not 0.
    """
    columns, few = load_i64(matrix + MATRIX.columns), load_i64(matrix + MATRIX.dot_few)
    if few and count > 1:
        call(few, (w, rows, columns, entries, count, accumulate))
    else:
        dot, row_bytes = load_i64(matrix + MATRIX.dot), load_i64(matrix + MATRIX.row_bytes)
        step, first = rows if count == 1 else FEW_ROWS, 0
        while first < rows:
            for i in range(count):
                entry = entries + i * ENTRY.bytes
                x, y = load_i64(entry + ENTRY.activation), load_i64(entry + ENTRY.result) + 4 * first
                some, factor = min(step, rows - first), load_f32(entry + ENTRY.factor)
                call(dot, (w + first * row_bytes, some, columns, x, y, factor, accumulate))
            first += step
