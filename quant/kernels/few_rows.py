"""Some rows of weights times a few activation rows: each product is made as that of one row is, bit by bit.

So a stepwise plan (see quant.plan) gives every token what a step of its own would, and reads weights once for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quant.atomics import call
from quant.blocks.step_rows import rows_scratch_bytes
from quant.formats import Format
from quant.jit import Kernel, inline
from quant.kernels.step_tiles import step_kernel, tiles_scratch_bytes
from quant.simd import load_f32, load_i64
from quant.tile import ENTRY
from quant.weights import MATRIX, ExpertMatrices, Matrix, operands_of

FEW_ROWS = 16  # that are multiplied with one activation row, then the next: they stay in the first-level cache


def few_kernels(weights: Format) -> tuple[Kernel, ...]:
    """What multiplies rows of a format with several activation rows at once: one for rows, or those for tiles and to unpack
    them; none, if each is multiplied alone.
    """
    if weights.step_rows:
        return (weights.step_rows,)
    tiles = step_kernel(weights)
    return (tiles, weights.unpack_tile) if tiles else ()


def few_operands(weights: Matrix | ExpertMatrices) -> dict[str, Any]:
    """Fields of MATRIX for kernels that multiply rows of weights with a few activation rows."""
    kernels = few_kernels(weights.format)
    return operands_of(weights, **dict(zip(("multiply", "unpack"), kernels, strict=False)))


def few_scratch_bytes(weights: Sequence[Matrix | ExpertMatrices], entries: int) -> int:
    """Bytes of so many entries, and of the memory behind them that `multiply_few` needs for any of these matrices."""
    by_rows = (rows_scratch_bytes(w.columns, entries) for w in weights if w.format.step_rows)
    tiles = (tiles_scratch_bytes(w.row_bytes, entries) for w in weights if w.format.by_tiles)
    return entries * ENTRY.bytes + 64 + max([*by_rows, *tiles], default=0)


@inline
def aligned(address):
    """The next address that is a multiple of 64."""
    return (address + 63) // 64 * 64


@inline
def multiply_few(matrix, w, rows, entries, count, added, accumulate, scratch):
    """The rows of weights at w times each of `count` activation rows; entries: a table of ENTRY for each of these.

    Results stand one behind the other from the entry's result on, added to what is there if accumulate is not 0, and those of
    the entries from `added` on in any case. scratch: memory, see `few_scratch_bytes`.
    """
    several, unpack = load_i64(matrix + MATRIX.multiply), load_i64(matrix + MATRIX.unpack)
    if several and unpack and count > 1:
        call(several, (matrix, w, rows, entries, count, added, accumulate, aligned(scratch)))
    elif several and count > 1:
        columns = load_i64(matrix + MATRIX.columns)
        call(several, (w, rows, columns, entries, count, added, accumulate, aligned(scratch)))
    else:
        dot, columns = load_i64(matrix + MATRIX.dot), load_i64(matrix + MATRIX.columns)
        step, first, row_bytes = rows if count == 1 else FEW_ROWS, 0, load_i64(matrix + MATRIX.row_bytes)
        while first < rows:
            for i in range(count):
                entry = entries + i * ENTRY.bytes
                x, y = load_i64(entry + ENTRY.activation), load_i64(entry + ENTRY.result) + 4 * first
                some, factor = min(step, rows - first), load_f32(entry + ENTRY.factor)
                adds = 1 if i >= added else accumulate
                call(dot, (w + first * row_bytes, some, columns, x, y, factor, adds))
            first += step
