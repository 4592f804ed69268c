"""dot_rows of types with blocks of 256 columns: rows are multiplied one after the other, or four at a time.

One after the other, memory comes as a stream that a core fetches on its own. Four at a time, an activation is put in order
once for all of them. Every row's sum has the same order, whichever rows are multiplied with it: see quant.blocks.totals.

A format tells what differs by helpers:

parts_of(x)       256 columns of the activation at x, in the order in which the format unpacks its weights: i8x64 vectors
sums_of(w, parts) the whole-number sums of the block at w and those columns, a lane for each group that shares a scale
scales_of(w)      the block's scales and minima, a lane for each group
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant.blocks.rows import emit
from quant.blocks.totals import add_groups, of_groups_of_16, of_groups_of_32
from quant.declarations import Intrinsic
from quant.jit import inline, intrinsic
from quant.simd import I32, i32x8, load_i8x64, prefetch_l2, splat_llvm, sum_lanes, zero_f32x8, zero_f32x16

# Bytes from what is read to what is asked for, of many rows and of few, behind which other rows would be asked for in vain.
_AHEAD, _AHEAD_OF_FEW, _FEW_BYTES = 16384, 4096, 65536


@inline
def parts_in_order(x):
    """256 columns of an activation as they come."""
    return load_i8x64(x), load_i8x64(x + 64), load_i8x64(x + 128), load_i8x64(x + 192)


@inline
def _dot_each(of_groups, zero, w, rows, columns, x, y, alpha, accumulate, block, parts_of, sums_of, scales_of):
    ahead = _AHEAD if rows * (columns // 256) * block.bytes >= _FEW_BYTES else _AHEAD_OF_FEW
    for r in range(rows):
        total = zero()
        for b in range(columns // 256):
            for line in range(0, block.bytes, 64):
                prefetch_l2(w + ahead + line)
            d, s = of_groups(x, columns, b)
            total = _add_block(total, w, parts_of(x + 256 * b), d, s, sums_of, scales_of)
            w += block.bytes
        emit(y + 4 * r, sum_lanes(total), alpha, accumulate)


@inline
def dot_each_by_32(w, rows, columns, x, y, alpha, accumulate, block, parts_of, sums_of, scales_of):
    """dot_rows of quant.formats, row by row, of types with a scale for 32 columns; block: the type's declaration."""
    _dot_each(
        of_groups_of_32, zero_f32x8, w, rows, columns, x, y, alpha, accumulate, block, parts_of, sums_of, scales_of
    )


@inline
def dot_each_by_16(w, rows, columns, x, y, alpha, accumulate, block, parts_of, sums_of, scales_of):
    """The same, with a scale for 16 columns."""
    _dot_each(
        of_groups_of_16, zero_f32x16, w, rows, columns, x, y, alpha, accumulate, block, parts_of, sums_of, scales_of
    )


@inline
def _dot_fours(of_groups, zero, w, rows, columns, x, y, alpha, accumulate, block, parts_of, sums_of, scales_of):
    row_bytes = columns // 256 * block.bytes
    distance = _AHEAD if rows * row_bytes >= _FEW_BYTES else _AHEAD_OF_FEW
    for r in range(0, rows, 4):
        left, ahead = min(rows - r, 4) - 1, w + 3 * row_bytes + distance
        at1, at2, at3 = min(left, 1) * row_bytes, min(left, 2) * row_bytes, left * row_bytes
        t0, t1, t2, t3 = zero(), zero(), zero(), zero()
        for b in range(columns // 256):
            for line in range(0, 4 * block.bytes, 64):
                prefetch_l2(ahead + line)
            parts, (d, s) = parts_of(x + 256 * b), of_groups(x, columns, b)
            t0 = _add_block(t0, w, parts, d, s, sums_of, scales_of)
            t1 = _add_block(t1, w + at1, parts, d, s, sums_of, scales_of)
            t2 = _add_block(t2, w + at2, parts, d, s, sums_of, scales_of)
            t3 = _add_block(t3, w + at3, parts, d, s, sums_of, scales_of)
            w += block.bytes
            ahead += 4 * block.bytes
        emit(y + 4 * r, sum_lanes(t0), alpha, accumulate)
        if left > 0:
            emit(y + 4 * r + 4, sum_lanes(t1), alpha, accumulate)
        if left > 1:
            emit(y + 4 * r + 8, sum_lanes(t2), alpha, accumulate)
        if left > 2:
            emit(y + 4 * r + 12, sum_lanes(t3), alpha, accumulate)
        w += 3 * row_bytes


@inline
def _add_block(total, w, parts, d, s, sums_of, scales_of):
    scale, minimum = scales_of(w)
    return add_groups(total, sums_of(w, parts), scale, minimum, d, s)


@inline
def dot_fours_by_32(w, rows, columns, x, y, alpha, accumulate, block, parts_of, sums_of, scales_of):
    """As `dot_each_by_32`, four rows at a time: where putting an activation in order would take a quarter of the time.

    What is asked for lies in one stream behind the four (Q2_K, 2048 columns: 88 % of the read bandwidth without, 95 with).
    """
    _dot_fours(
        of_groups_of_32, zero_f32x8, w, rows, columns, x, y, alpha, accumulate, block, parts_of, sums_of, scales_of
    )


@inline
def dot_fours_by_16(w, rows, columns, x, y, alpha, accumulate, block, parts_of, sums_of, scales_of):
    """The same, with a scale for 16 columns."""
    _dot_fours(
        of_groups_of_16, zero_f32x16, w, rows, columns, x, y, alpha, accumulate, block, parts_of, sums_of, scales_of
    )


def fields8(step: int) -> Intrinsic:
    """Declare an intrinsic: a word -> i32x8, lane i being the word shifted right by i * step bits."""

    def generate(builder: Any, word: Any) -> Any:
        lanes = splat_llvm(builder, builder.trunc(word, I32), 8)
        return builder.lshr(lanes, ir.Constant(lanes.type, [i * step for i in range(8)]))

    return intrinsic(lambda word: (i32x8, generate))
