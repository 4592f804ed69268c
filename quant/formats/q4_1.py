"""Q4_1: 32 columns in 20 bytes.

0  float16 d, float16 m
4  uint4 q[32]       byte i holds column i (low) and column i + 16 (high);  value = d * q + m
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks32 import dot_blocks, halves8, packed4, unpack_blocks, unpack_nibbles
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.int8_dot import dot_u7
from quant.jit import inline
from quant.simd import bit_and, concat, load_f16, load_i8x16, shift_right, sub, zero_f32x8, zero_f32x16
from quant.tile import gather_f16

BLOCK = Block("Q4_1", number=3, columns=32, d=Scale("f16", 1 / 8), m=Scale("f16", -7.5 / 8), qs=16)

_d8, _m8 = halves8(BLOCK.bytes, BLOCK.d), halves8(BLOCK.bytes, BLOCK.m)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, m, qs = BLOCK.split(data)
    return rows_of(d * np.concatenate([qs & 15, qs >> 4], axis=-1) + m)


@inline
def _scales8(w):
    return _d8(w), sub(zero_f32x8(), _m8(w))


@inline
def _scales1(w):
    return load_f16(w + BLOCK.d), -load_f16(w + BLOCK.m)


@inline
def _scales16(w, row_bytes):
    return gather_f16(w + BLOCK.d, row_bytes), sub(zero_f32x16(), gather_f16(w + BLOCK.m, row_bytes))


@inline
def split_nibbles(packed):
    """The low nibbles and the high ones."""
    return bit_and(packed, 15), shift_right(packed, 4)


@inline
def _load4(w):
    return split_nibbles(packed4(w + BLOCK.qs, BLOCK.bytes))


@inline
def _load1(w):
    low, high = split_nibbles(load_i8x16(w + BLOCK.qs))
    return concat(low, high)


@inline
def dot(acc, q, x):
    """`dot_u7`, as an operand."""
    return dot_u7(acc, q, x)


@dot_rows
def q4_1_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_blocks(w, rows, columns, x, y, alpha, accumulate, BLOCK, _scales8, _scales1, _load4, _load1, dot)


@unpack_rows
def q4_1_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_blocks(w, rows, columns, q, scale, minimum, BLOCK, _scales1, _load1)


@unpack_tile
def q4_1_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    unpack_nibbles(w, row_bytes, columns, tile, scales, minima, BLOCK, _scales16, split_nibbles)


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=q4_1_dot_rows,
    by_tiles=True,
    unpack_rows=q4_1_unpack_rows,
    unpack_tile=q4_1_unpack_tile,
    bits=4,
)
