"""Q8_0: 32 columns in 34 bytes.

0  float16 d
2  int8 q[32]        value = d * q
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import scales_of, sums32_of
from quant.formats import Format, blocks_of, dot_rows, emit, halves, rows_of, unpack_rows, unpack_tile
from quant.int8_dot import BIAS, dot_wide
from quant.simd import (  # fmt: skip
    bit_xor,
    fma,
    load_f16,
    load_f32,
    load_i8x32,
    load_i8x64,
    mul,
    splat,
    splat8,
    store_f32,
    store_f32x16,
    store_i8x32,
    store_i8x64,
    sum_lanes,
    to_f32,
    zero_f32x8,
    zero_i32x8,
)
from quant.tile import gather_f16, transpose8

_BIAS = np.float32(BIAS)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 34)
    return rows_of(halves(blocks[..., :2]) * blocks[..., 2:].view(np.int8))


@dot_rows
def q8_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    d_x, s_x = scales_of(x, columns), sums32_of(x, columns)
    for r in range(rows):
        total = zero_f32x8()
        offset = np.float32(0)
        for b in range(columns // 32):
            d = load_f16(w)
            products = dot_wide(zero_i32x8(), bit_xor(load_i8x32(w + 2), BIAS), load_i8x32(x + 32 * b))
            total = fma(to_f32(products), splat8(d * load_f32(d_x + 4 * b)), total)
            offset += d * load_f32(s_x + 4 * b)
            w += 34
        emit(y + 4 * r, sum_lanes(total) - _BIAS * offset, alpha, accumulate)


@unpack_rows
def q8_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 32):
        d = load_f16(w)
        store_i8x32(q + 32 * b, bit_xor(load_i8x32(w + 2), BIAS))
        store_f32(scale + 4 * b, d)
        store_f32(minimum + 4 * b, _BIAS * d)
        w += 34


@unpack_tile
def q8_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for b in range(columns // 32):
        d = gather_f16(w, row_bytes)
        store_f32x16(scales + 64 * b, d)
        store_f32x16(minima + 64 * b, mul(d, splat(_BIAS)))
        transpose8(w + 2, row_bytes, tile + 512 * b, 64)
        for step in range(8):
            place = tile + 512 * b + 64 * step
            store_i8x64(place, bit_xor(load_i8x64(place), BIAS))
        w += 34


FORMAT = Format("Q8_0", 32, 34, "q8", 32, dequantize, q8_0_dot_rows, q8_0_unpack_rows, q8_0_unpack_tile)
