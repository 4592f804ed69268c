"""F32: float32, little-endian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Weight
from quant.blocks.rows import emit
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.simd import fma, load_f32x16, store_f32x16, sum_lanes, zero_f32x16
from quant.tile import transpose16

BLOCK = Block("F32", number=0, columns=1, x=Weight("f32"))


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, 4 columns] -> float32 [rows, columns]."""
    return np.ascontiguousarray(data).view(np.float32)


@dot_rows
def f32_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; two sums in flight."""
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        for c in range(0, columns - 16, 32):
            even = fma(load_f32x16(w + 4 * c), load_f32x16(x + 4 * c), even)
            odd = fma(load_f32x16(w + 4 * c + 64), load_f32x16(x + 4 * c + 64), odd)
        if columns % 32:
            even = fma(load_f32x16(w + 4 * columns - 64), load_f32x16(x + 4 * columns - 64), even)
        emit(y + 4 * r, sum_lanes(even) + sum_lanes(odd), alpha, accumulate)
        w += 4 * columns


@unpack_rows
def f32_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for c in range(0, rows * columns, 16):
        store_f32x16(q + 4 * c, load_f32x16(w + 4 * c))


@unpack_tile
def f32_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for c in range(0, columns, 16):
        transpose16(w + 4 * c, row_bytes, tile + 64 * c, 64)


FORMAT = Format(
    block=BLOCK,
    activation="f32",
    group=0,
    dequantize=dequantize,
    dot_rows=f32_dot_rows,
    unpack_rows=f32_unpack_rows,
    unpack_tile=f32_unpack_tile,
)
