"""Q5_1: 32 columns in 24 bytes.

0  float16 d, float16 m
4  uint32 h          bit i of h is bit 4 of column i
8  uint4 q[32]       byte i holds column i (low) and column i + 16 (high);  value = d * (q | h << 4) + m
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.blocks.blocks32 import dot_blocks, halves8, packed4, unpack_blocks
from quant.formats import Format, blocks_of, dot_rows, halves, rows_of, unpack_rows, unpack_tile
from quant.formats.q4_1 import both, dot
from quant.formats.q5_0 import fifth_bits, fifths4, one_of_five, unpack_fives
from quant.jit import inline
from quant.simd import bit_or, load_f16, sub, zero_f32x8, zero_f32x16
from quant.tile import gather_f16

_d8, _m8, _low4, _high4 = halves8(24, 0), halves8(24, 2), fifths4(24, 4), fifths4(24, 6)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 24)
    nibbles = np.concatenate([blocks[..., 8:] & 15, blocks[..., 8:] >> 4], axis=-1)
    return rows_of(halves(blocks[..., :2]) * (nibbles | fifth_bits(blocks[..., 4:8])) + halves(blocks[..., 2:4]))


@inline
def _scales8(w):
    return _d8(w), sub(zero_f32x8(), _m8(w))


@inline
def _scales1(w):
    return load_f16(w), -load_f16(w + 2)


@inline
def _scales16(w, row_bytes):
    return gather_f16(w, row_bytes), sub(zero_f32x16(), gather_f16(w + 2, row_bytes))


@inline
def _four(w):
    low, high = both(packed4(w + 8, 24))
    return bit_or(low, _low4(w)), bit_or(high, _high4(w))


@inline
def _one(w):
    return one_of_five(w + 4)


@dot_rows
def q5_1_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_blocks(w, rows, columns, x, y, alpha, accumulate, 24, _scales8, _scales1, _four, _one, dot)


@unpack_rows
def q5_1_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_blocks(w, rows, columns, q, scale, minimum, 24, _scales1, _one)


@unpack_tile
def q5_1_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    unpack_fives(w, row_bytes, columns, tile, scales, minima, 24, 4, _scales16)


FORMAT = Format("Q5_1", 32, 24, "q8", 32, dequantize, q5_1_dot_rows, q5_1_unpack_rows, q5_1_unpack_tile)
