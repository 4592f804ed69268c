"""Q2_K: 256 columns in 84 bytes, sixteen sub-blocks of 16; the two halves of 128 columns are alike.

 0  uint4 scale[16] (low nibbles), uint4 minimum[16] (high nibbles)
16  uint2 q[256]     half n, byte i < 32: columns 128n + i, + 32, + 64, + 96, lowest bits first
80  float16 d, float16 dmin
    value = d * scale * q - dmin * minimum
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks256 import dot_fours_by_16
from quant.blocks.group_sums import sums_by_group, sums_of_products
from quant.blocks.sixteens import load_two_f16, to_words
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (  # fmt: skip
    bit_and,
    concat,
    load_i8x16,
    load_i8x32,
    load_i8x64,
    mul,
    shift_right,
    store_f32x16,
    store_i8x32,
    store_i8x64,
    to_f32,
)
from quant.tile import gather_f16, turn4, turn4_words

BLOCK = Block("Q2_K", number=10, columns=256, scales=16, qs=64, d=Scale("f16", 1 / 16), dmin=Scale("f16", 1.5 / 16))

# Of the vectors of `quarters`, by four lanes of a product: vector v holds columns 32v .. 32v + 31, and 128 further on.
SUB_BLOCKS = [(2 * v, 2 * v + 1, 2 * v + 8, 2 * v + 9) for v in range(4)]
_sums = sums_by_group(SUB_BLOCKS, bits=2)


def quarters_of(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [rows, n, 64] -> uint2 [rows, n, 256]."""
    shifted = packed.reshape(*packed.shape[:2], 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    return (shifted & np.uint8(3)).reshape(*packed.shape[:2], 256)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    scales, qs, d, dmin = BLOCK.split(data)
    q = quarters_of(qs).reshape(*qs.shape[:2], 16, 16)
    return rows_of((d * (scales & 15))[..., None] * q - (dmin * (scales >> 4))[..., None])


@inline
def quarters(packed):
    """64 bytes -> four i8x64, by their place in a byte, lowest bits first."""
    half = shift_right(packed, 4)
    return bit_and(packed, 3), bit_and(shift_right(packed, 2), 3), bit_and(half, 3), bit_and(shift_right(half, 2), 3)


@inline
def four_parts(x):
    """256 columns of an activation in the order of `quarters`."""
    return (
        concat(load_i8x32(x), load_i8x32(x + 128)), concat(load_i8x32(x + 32), load_i8x32(x + 160)),
        concat(load_i8x32(x + 64), load_i8x32(x + 192)), concat(load_i8x32(x + 96), load_i8x32(x + 224)),
    )  # fmt: skip


@inline
def _sums_of(w, x):
    q0, q1, q2, q3 = quarters(load_i8x64(w + BLOCK.qs))
    return sums_of_products(_sums, (q0, q1, q2, q3), x)


@inline
def _load_scales(w):
    """d * scale and dmin * minimum of a block's sixteen sub-blocks, each f32x16."""
    both = to_words(load_i8x16(w + BLOCK.scales))
    d, dmin = load_two_f16(w + BLOCK.d)
    return mul(d, to_f32(bit_and(both, 15))), mul(dmin, to_f32(shift_right(both, 4)))


@dot_rows
def q2_k_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_fours_by_16(w, rows, columns, x, y, alpha, accumulate, BLOCK, four_parts, _sums_of, _load_scales)


@unpack_rows
def q2_k_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales, minima = _load_scales(w)
        store_f32x16(scale + 64 * b, scales)
        store_f32x16(minimum + 64 * b, minima)
        spread_row(w + BLOCK.qs, q + 256 * b)
        w += BLOCK.bytes


@inline
def spread_row(w, q):
    """64 bytes -> 256 columns."""
    for half in range(2):
        packed = load_i8x32(w + 32 * half)
        for part in range(4):
            store_i8x32(q + 128 * half + 32 * part, bit_and(packed, 3))
            packed = shift_right(packed, 2)


@inline
def _four_scales(d, dmin, packed, scales, minima):
    """Four sub-blocks, whose scales and minima are the nibbles of a word."""
    for byte in range(4):
        store_f32x16(scales + 64 * byte, mul(d, to_f32(bit_and(packed, 15))))
        store_f32x16(minima + 64 * byte, mul(dmin, to_f32(bit_and(shift_right(packed, 4), 15))))
        packed = shift_right(packed, 8)


@inline
def _tile_scales(w, row_bytes, scales, minima):
    """d * scale and dmin * minimum of one block of 16 rows, float32 [16 sub-blocks, 16 rows] each."""
    d, dmin = gather_f16(w + BLOCK.d, row_bytes), gather_f16(w + BLOCK.dmin, row_bytes)
    u0, u1, u2, u3 = turn4_words(w + BLOCK.scales, row_bytes)
    _four_scales(d, dmin, u0, scales, minima)
    _four_scales(d, dmin, u1, scales + 256, minima + 256)
    _four_scales(d, dmin, u2, scales + 512, minima + 512)
    _four_scales(d, dmin, u3, scales + 768, minima + 768)


@inline
def store_quarters(packed, place):
    """A step of `quarters` to their places in a tile."""
    q0, q1, q2, q3 = quarters(packed)
    store_i8x64(place, q0)
    store_i8x64(place + 512, q1)
    store_i8x64(place + 1024, q2)
    store_i8x64(place + 1536, q3)


@inline
def spread_tile(w, row_bytes, tile):
    """64 bytes of 16 rows -> 256 columns of a tile."""
    for part in range(4):
        place = tile + 256 * part + part // 2 * 1536
        s0, s1, s2, s3 = turn4(w + 16 * part, row_bytes)
        store_quarters(s0, place)
        store_quarters(s1, place + 64)
        store_quarters(s2, place + 128)
        store_quarters(s3, place + 192)


@unpack_tile
def q2_k_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats; a step of 4 columns is turned packed, with those 32, 64 and 96 further on."""
    for b in range(columns // 256):
        _tile_scales(w, row_bytes, scales + 1024 * b, minima + 1024 * b)
        spread_tile(w + BLOCK.qs, row_bytes, tile + 4096 * b)
        w += BLOCK.bytes


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=16,
    dequantize=dequantize,
    dot_rows=q2_k_dot_rows,
    by_tiles=True,
    unpack_rows=q2_k_unpack_rows,
    unpack_tile=q2_k_unpack_tile,
    bits=4,
)
