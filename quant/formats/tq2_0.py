"""TQ2_0: 256 columns in 66 bytes, weights of three values.

 0  uint2 q[256]      half n, byte i < 32: columns 128n + i, + 32, + 64, + 96, lowest bits first
64  float16 d         value = d * (q - 1)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, Ternary, rows_of
from quant.blocks.blocks256 import dot_each_few, dot_fours
from quant.formats import Format, dot_few, dot_rows, unpack_rows, unpack_tile
from quant.formats.q2_k import QUARTER, four_parts, quarters_of, spread_row, spread_tile
from quant.int8_dot import dot_u7
from quant.jit import inline
from quant.simd import (  # fmt: skip
    add,
    bit_and,
    fma,
    load_f16,
    load_f32x8,
    load_f32x16,
    load_i8x64,
    mul,
    permute,
    shift_right,
    splat,
    splat8,
    store_f32x8,
    store_f32x16,
    sub,
    to_f32,
    zero_f32x16,
    zero_i32x16,
)
from quant.tile import gather_f16

BLOCK = Block("TQ2_0", number=35, columns=256, qs=Ternary(64), d=Scale("f16", 1))

_LANES_0_4, _LANES_1_5, _LANES_2_6, _LANES_3_7 = (permute([i] * 8 + [i + 4] * 8) for i in range(4))


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    qs, d = BLOCK.split(data)
    return rows_of(d * (quarters_of(qs).astype(np.int8) - np.int8(1)))


@inline
def _permuted_x(x, d, s32, s16):
    d_x = load_f32x8(d)
    higher = mul(d_x, splat8(QUARTER))  # for bits that stand two higher than they should
    scales = _LANES_0_4(d_x), _LANES_1_5(higher), _LANES_2_6(d_x), _LANES_3_7(higher)
    return four_parts(x), scales, sub(zero_f32x16(), load_f32x16(s16))


@inline
def _add_products(w, permuted, total):
    x, d, less = permuted
    packed = load_i8x64(w + BLOCK.qs)
    half, zero = shift_right(packed, 4), zero_i32x16()
    even = fma(to_f32(dot_u7(zero, bit_and(packed, 3), x[0])), d[0], less)
    even = fma(to_f32(dot_u7(zero, bit_and(packed, 12), x[1])), d[1], even)
    odd = mul(to_f32(dot_u7(zero, bit_and(half, 3), x[2])), d[2])
    odd = fma(to_f32(dot_u7(zero, bit_and(half, 12), x[3])), d[3], odd)
    return fma(add(even, odd), splat(load_f16(w + BLOCK.d)), total)


@dot_rows
def tq2_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_fours(w, rows, columns, x, y, alpha, accumulate, BLOCK, _permuted_x, _add_products)


@dot_few
def tq2_0_dot_few(w, rows, columns, entries, count, accumulate):
    """See quant.formats."""
    dot_each_few(w, rows, columns, entries, count, accumulate, BLOCK, _permuted_x, _add_products)


@unpack_rows
def tq2_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        d = splat8(load_f16(w + BLOCK.d))
        store_f32x8(scale + 32 * b, d)
        store_f32x8(minimum + 32 * b, d)
        spread_row(w + BLOCK.qs, q + 256 * b)
        w += BLOCK.bytes


@inline
def fill_tile_scales(w, row_bytes, scales, minima):
    """The float16 at w of 16 rows, float32 [8 sub-blocks, 16 rows], as scale and as minimum."""
    d = gather_f16(w, row_bytes)
    for part in range(0, 512, 64):
        store_f32x16(scales + part, d)
        store_f32x16(minima + part, d)


@unpack_tile
def tq2_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for b in range(columns // 256):
        fill_tile_scales(w + BLOCK.d, row_bytes, scales + 512 * b, minima + 512 * b)
        spread_tile(w + BLOCK.qs, row_bytes, tile + 4096 * b)
        w += BLOCK.bytes


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=tq2_0_dot_rows,
    dot_few=tq2_0_dot_few,
    unpack_rows=tq2_0_unpack_rows,
    unpack_tile=tq2_0_unpack_tile,
    bits=4,
)
