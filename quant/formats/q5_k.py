"""Q5_K: 256 columns in 176 bytes, eight sub-blocks of 32.

 0  float16 d, float16 dmin, 6-bit scales and minima as in Q4_K
16  uint8 h[32]       bit j of h[i] is bit 4 of column i of sub-block j
48  uint4 q[256]      as in Q4_K
    value = d * scale * (q | h << 4) - dmin * minimum
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale
from quant.blocks.blocks256 import dot_each_by_32
from quant.blocks.group_sums import sums_by_group, sums_of_products
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.formats.q4_k import SUB_BLOCKS, affine, load_scales, nibbles, parts_of, tile_scales
from quant.jit import inline
from quant.simd import (
    bit_and,
    bit_or,
    concat,
    load_i8x32,
    load_i8x64,
    shift_left,
    shift_right,
    store_f32x8,
    store_i8x32,
    store_i8x64,
)
from quant.tile import turn4

BLOCK = Block(
    "Q5_K", number=13, columns=256, d=Scale("f16", 3 / 32 / 31), dmin=Scale("f16", 1.5 / 32), scales=12, qh=32, qs=128
)

_sums = sums_by_group(SUB_BLOCKS, bits=5)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, dmin, scales, qh, qs = BLOCK.split(data)
    bits = qh[..., None, :] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return affine(d, dmin, scales, nibbles(qs) | (bits << 4).astype(np.uint8))


@inline
def high_bits(w):
    """Bit 4 of each column, in place: four i8x64 for sub-blocks (0, 2), (1, 3), (4, 6) and (5, 7)."""
    h = load_i8x32(w + BLOCK.qh)
    b0, b1 = bit_and(shift_left(h, 4), 16), bit_and(shift_left(h, 3), 16)
    b2, b3 = bit_and(shift_left(h, 2), 16), bit_and(shift_left(h, 1), 16)
    b4, b5 = bit_and(h, 16), bit_and(shift_right(h, 1), 16)
    b6, b7 = bit_and(shift_right(h, 2), 16), bit_and(shift_right(h, 3), 16)
    return concat(b0, b2), concat(b1, b3), concat(b4, b6), concat(b5, b7)


@inline
def _sums_of(w, x):
    h0, h1, h2, h3 = high_bits(w)
    first, second = load_i8x64(w + BLOCK.qs), load_i8x64(w + BLOCK.qs + 64)
    q0, q1 = bit_or(bit_and(first, 15), h0), bit_or(shift_right(first, 4), h1)
    q2, q3 = bit_or(bit_and(second, 15), h2), bit_or(shift_right(second, 4), h3)
    return sums_of_products(_sums, (q0, q1, q2, q3), x)


@dot_rows
def q5_k_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_each_by_32(w, rows, columns, x, y, alpha, accumulate, BLOCK, parts_of, _sums_of, load_scales)


@inline
def _unpack_pair(packed, h, pair, q):
    """32 bytes of nibbles, with the pair's two high bits lowest in h -> 64 columns."""
    store_i8x32(q + 64 * pair, bit_or(bit_and(packed, 15), bit_and(shift_left(h, 4), 16)))
    store_i8x32(q + 64 * pair + 32, bit_or(shift_right(packed, 4), bit_and(shift_left(h, 3), 16)))


@unpack_rows
def q5_k_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales, minima = load_scales(w)
        store_f32x8(scale + 32 * b, scales)
        store_f32x8(minimum + 32 * b, minima)
        h = load_i8x32(w + BLOCK.qh)
        for pair in range(4):
            _unpack_pair(load_i8x32(w + BLOCK.qs + 32 * pair), h, pair, q + 256 * b)
            h = shift_right(h, 2)
        w += BLOCK.bytes


@inline
def _store_step(packed, bits, place):
    """A step of nibbles with their high bits, lowest in `bits`; gives the bits of the next pair of sub-blocks."""
    store_i8x64(place, bit_or(bit_and(packed, 15), bit_and(shift_left(bits, 4), 16)))
    store_i8x64(place + 512, bit_or(shift_right(packed, 4), bit_and(shift_left(bits, 3), 16)))
    return shift_right(bits, 2)


@unpack_tile
def q5_k_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats; as in Q4_K, with the high bits of all sub-blocks turned once."""
    for b in range(columns // 256):
        tile_scales(w, row_bytes, scales + 512 * b, minima + 512 * b)
        for part in range(2):
            h0, h1, h2, h3 = turn4(w + BLOCK.qh + 16 * part, row_bytes)
            for pair in range(4):
                place = tile + 4096 * b + 1024 * pair + 256 * part
                s0, s1, s2, s3 = turn4(w + BLOCK.qs + 32 * pair + 16 * part, row_bytes)
                h0, h1 = _store_step(s0, h0, place), _store_step(s1, h1, place + 64)
                h2, h3 = _store_step(s2, h2, place + 128), _store_step(s3, h3, place + 192)
        w += BLOCK.bytes


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=q5_k_dot_rows,
    by_tiles=True,
    unpack_rows=q5_k_unpack_rows,
    unpack_tile=q5_k_unpack_tile,
    bits=5,
)
