"""Q4_1: 32 columns in 20 bytes.

0  float16 d, float16 m
4  uint4 q[32]       byte i holds column i (low) and column i + 16 (high);  value = d * q + m
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.blocks.blocks32 import dot_blocks, halves8, packed4, unpack_blocks, unpack_nibbles
from quant.formats import Format, blocks_of, dot_rows, halves, rows_of, unpack_rows, unpack_tile
from quant.int8_dot import dot_u7
from quant.jit import inline
from quant.simd import bit_and, concat, load_f16, load_i8x16, shift_right, sub, zero_f32x8, zero_f32x16
from quant.tile import gather_f16

_d8, _m8 = halves8(20, 0), halves8(20, 2)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 20)
    nibbles = np.concatenate([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], axis=-1)
    return rows_of(halves(blocks[..., :2]) * nibbles + halves(blocks[..., 2:4]))


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
def both(packed):
    """The low nibbles and the high ones."""
    return bit_and(packed, 15), shift_right(packed, 4)


@inline
def _four(w):
    return both(packed4(w + 4, 20))


@inline
def _one(w):
    low, high = both(load_i8x16(w + 4))
    return concat(low, high)


@inline
def dot(acc, q, x):
    """`dot_u7`, as an operand."""
    return dot_u7(acc, q, x)


@dot_rows
def q4_1_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_blocks(w, rows, columns, x, y, alpha, accumulate, 20, _scales8, _scales1, _four, _one, dot)


@unpack_rows
def q4_1_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_blocks(w, rows, columns, q, scale, minimum, 20, _scales1, _one)


@unpack_tile
def q4_1_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    unpack_nibbles(w, row_bytes, columns, tile, scales, minima, 20, 4, _scales16, both)


FORMAT = Format("Q4_1", 32, 20, "q8", 32, dequantize, q4_1_dot_rows, q4_1_unpack_rows, q4_1_unpack_tile)
