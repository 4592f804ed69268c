"""Q5_1: 32 columns in 24 bytes.

0  float16 d, float16 m
4  uint32 h          bit i of h is bit 4 of column i
8  uint4 q[32]       byte i holds column i (low) and column i + 16 (high);  value = d * (q | h << 4) + m
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks32 import dot_blocks, halves8, packed4, unpack_blocks
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.formats.q4_1 import dot, split_nibbles
from quant.formats.q5_0 import fifth_bits, fifths4, load1_of_five_bits, unpack_fives
from quant.jit import inline
from quant.simd import bit_or, load_f16, sub, zero_f32x8, zero_f32x16
from quant.tile import gather_f16

BLOCK = Block("Q5_1", number=7, columns=32, d=Scale("f16", 1 / 16), m=Scale("f16", -15.5 / 16), qh=4, qs=16)

_d8, _m8 = halves8(BLOCK.bytes, BLOCK.d), halves8(BLOCK.bytes, BLOCK.m)
_low4, _high4 = fifths4(BLOCK.bytes, BLOCK.qh), fifths4(BLOCK.bytes, BLOCK.qh + 2)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, m, qh, qs = BLOCK.split(data)
    nibbles = np.concatenate([qs & 15, qs >> 4], axis=-1)
    return rows_of(d * (nibbles | fifth_bits(qh)) + m)


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
def _load4(w):
    low, high = split_nibbles(packed4(w + BLOCK.qs, BLOCK.bytes))
    return bit_or(low, _low4(w)), bit_or(high, _high4(w))


@inline
def _load1(w):
    return load1_of_five_bits(w + BLOCK.qh)


@dot_rows
def q5_1_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_blocks(w, rows, columns, x, y, alpha, accumulate, BLOCK, _scales8, _scales1, _load4, _load1, dot)


@unpack_rows
def q5_1_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_blocks(w, rows, columns, q, scale, minimum, BLOCK, _scales1, _load1)


@unpack_tile
def q5_1_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    unpack_fives(w, row_bytes, columns, tile, scales, minima, BLOCK, _scales16)


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=q5_1_dot_rows,
    by_tiles=True,
    unpack_rows=q5_1_unpack_rows,
    unpack_tile=q5_1_unpack_tile,
    bits=5,
)
