"""What types with blocks of 256 columns share: rows met in pairs, so that an activation is arranged once for both.

Neither row waits for the other's sum, and every row's sum has the same order whether it has a partner or not.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant.activation import scales_of, sums16_of, sums32_of
from quant.formats import emit
from quant.jit import Intrinsic, inline, intrinsic
from quant.simd import I32, i32x8, splat_llvm, sum_lanes, zero_f32x16


@inline
def dot_pairs(w, rows, columns, x, y, alpha, accumulate, block_bytes, arranged, met):
    """The loop of dot_rows.

    arranged(x, d, s32, s16): what rows need of the 256 columns at x, whose scales and sums are at the other addresses.
    met(w, of_x, total): the f32x16 total with the products of the block at w.
    """
    row_bytes = columns // 256 * block_bytes
    for r in range(0, rows, 2):
        other = row_bytes if r + 1 < rows else 0
        d, s32, s16 = scales_of(x, columns), sums32_of(x, columns), sums16_of(x, columns)
        first, second = zero_f32x16(), zero_f32x16()
        for b in range(columns // 256):
            of_x = arranged(x + 256 * b, d + 32 * b, s32 + 32 * b, s16 + 64 * b)
            first, second = met(w, of_x, first), met(w + other, of_x, second)
            w += block_bytes
        emit(y + 4 * r, sum_lanes(first), alpha, accumulate)
        if other:
            emit(y + 4 * r + 4, sum_lanes(second), alpha, accumulate)
        w += row_bytes


def fields8(step: int) -> Intrinsic:
    """Declare an intrinsic: a word -> i32x8, lane i being the word shifted right by i * step bits."""

    def generate(builder: Any, word: Any) -> Any:
        lanes = splat_llvm(builder, builder.trunc(word, I32), 8)
        return builder.lshr(lanes, ir.Constant(lanes.type, [i * step for i in range(8)]))

    return intrinsic(lambda word: (i32x8, generate))
