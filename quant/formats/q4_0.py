"""Q4_0: 32 columns in 18 bytes.

0  float16 d
2  uint4 q[32]       byte i holds column i (low) and column i + 16 (high);  value = d * (q - 8)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import scales_of, sums32_of
from quant.formats import Format, blocks_of, dot_rows, emit, halves, rows_of, unpack_rows, unpack_tile
from quant.int8_dot import dot_u7
from quant.jit import inline
from quant.simd import (  # fmt: skip
    bit_and,
    concat,
    fma,
    load_f16,
    load_f32,
    load_i8x16,
    load_i8x32,
    load_i8x64,
    mul,
    shift_right,
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
from quant.tile import gather_f16, transpose4

_EIGHT = np.float32(8)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 18)
    nibbles = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1).astype(np.int8)
    return rows_of(halves(blocks[..., :2]) * (nibbles - np.int8(8)))


@inline
def nibbles32(address):
    """16 bytes -> i8x32: low nibbles, then high nibbles."""
    packed = load_i8x16(address)
    return concat(bit_and(packed, 15), shift_right(packed, 4))


@dot_rows
def q4_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    d_x, s_x = scales_of(x, columns), sums32_of(x, columns)
    for r in range(rows):
        total = zero_f32x8()
        offset = np.float32(0)
        for b in range(columns // 32):
            d = load_f16(w)
            products = dot_u7(zero_i32x8(), nibbles32(w + 2), load_i8x32(x + 32 * b))
            total = fma(to_f32(products), splat8(d * load_f32(d_x + 4 * b)), total)
            offset += d * load_f32(s_x + 4 * b)
            w += 18
        emit(y + 4 * r, sum_lanes(total) - _EIGHT * offset, alpha, accumulate)


@unpack_rows
def q4_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 32):
        d = load_f16(w)
        store_i8x32(q + 32 * b, nibbles32(w + 2))
        store_f32(scale + 4 * b, d)
        store_f32(minimum + 4 * b, _EIGHT * d)
        w += 18


@unpack_tile
def q4_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for b in range(columns // 32):
        d = gather_f16(w, row_bytes)
        store_f32x16(scales + 64 * b, d)
        store_f32x16(minima + 64 * b, mul(d, splat(_EIGHT)))
        transpose4(w + 2, row_bytes, scratch, 64)
        for step in range(4):
            packed = load_i8x64(scratch + 64 * step)
            store_i8x64(tile + 512 * b + 64 * step, bit_and(packed, 15))
            store_i8x64(tile + 512 * b + 256 + 64 * step, shift_right(packed, 4))
        w += 18


FORMAT = Format("Q4_0", 32, 18, "q8", 32, dequantize, q4_0_dot_rows, q4_0_unpack_rows, q4_0_unpack_tile)
