"""BF16: the upper half of a float32, little-endian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Weight
from quant.blocks.rows import emit
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.simd import fma, load_bf16x16, load_f32x16, store_f32x16, sum_lanes, zero_f32x16
from quant.tile import transpose16

BLOCK = Block("BF16", number=30, columns=1, x=Weight("bf16"))


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, 2 columns] -> float32 [rows, columns]."""
    words = np.ascontiguousarray(data).view(np.uint16)
    return (words.astype(np.uint32) << 16).view(np.float32)


@dot_rows
def bf16_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; two sums in flight."""
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        for c in range(0, columns - 16, 32):
            even = fma(load_bf16x16(w + 2 * c), load_f32x16(x + 4 * c), even)
            odd = fma(load_bf16x16(w + 2 * c + 32), load_f32x16(x + 4 * c + 64), odd)
        if columns % 32:
            even = fma(load_bf16x16(w + 2 * columns - 32), load_f32x16(x + 4 * columns - 64), even)
        emit(y + 4 * r, sum_lanes(even) + sum_lanes(odd), alpha, accumulate)
        w += 2 * columns


@unpack_rows
def bf16_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for c in range(0, rows * columns, 16):
        store_f32x16(q + 4 * c, load_bf16x16(w + 2 * c))


@unpack_tile
def bf16_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for c in range(0, columns, 16):
        for r in range(16):
            store_f32x16(scratch + 64 * r, load_bf16x16(w + r * row_bytes + 2 * c))
        transpose16(scratch, 64, tile + 64 * c, 64)


FORMAT = Format(
    block=BLOCK,
    activation="f32",
    group=0,
    dequantize=dequantize,
    dot_rows=bf16_dot_rows,
    unpack_rows=bf16_unpack_rows,
    unpack_tile=bf16_unpack_tile,
)
