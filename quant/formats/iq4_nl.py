"""IQ4_NL: 32 columns in 18 bytes, their values spaced as the weights of models are.

0  float16 d
2  uint4 q[32]       byte i holds column i (low) and column i + 16 (high);  value = d * VALUES[q]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks32 import dot_blocks, halves8, packed4, unpack_blocks, unpack_nibbles
from quant.blocks.lookup import high_nibbles, low_nibbles
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.int8_dot import BIAS, dot_wide
from quant.jit import inline
from quant.simd import concat, load_f16, load_i8x16, mul, splat, splat8
from quant.tile import gather_f16

BLOCK = Block("IQ4_NL", number=20, columns=32, d=Scale("f16", 1 / 64), qs=16)

VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
LOW, HIGH = (declare([value ^ BIAS for value in VALUES]) for declare in (low_nibbles, high_nibbles))
_BIAS = np.float32(BIAS)
_d8 = halves8(BLOCK.bytes, BLOCK.d)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, qs = BLOCK.split(data)
    nibbles = np.concatenate([qs & 15, qs >> 4], axis=-1)
    return rows_of(d * np.array(VALUES, np.float32)[nibbles])


@inline
def _scales8(w):
    d = _d8(w)
    return d, mul(d, splat8(_BIAS))


@inline
def _scales1(w):
    d = load_f16(w + BLOCK.d)
    return d, _BIAS * d


@inline
def _scales16(w, row_bytes):
    d = gather_f16(w + BLOCK.d, row_bytes)
    return d, mul(d, splat(_BIAS))


@inline
def _split_nibbles(packed):
    return LOW(packed), HIGH(packed)


@inline
def _load4(w):
    return _split_nibbles(packed4(w + BLOCK.qs, BLOCK.bytes))


@inline
def _load1(w):
    low, high = _split_nibbles(load_i8x16(w + BLOCK.qs))
    return concat(low, high)


@inline
def _dot(acc, q, x):
    return dot_wide(acc, q, x)


@dot_rows
def iq4_nl_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_blocks(w, rows, columns, x, y, alpha, accumulate, BLOCK, _scales8, _scales1, _load4, _load1, _dot)


@unpack_rows
def iq4_nl_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_blocks(w, rows, columns, q, scale, minimum, BLOCK, _scales1, _load1)


@unpack_tile
def iq4_nl_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    unpack_nibbles(w, row_bytes, columns, tile, scales, minima, BLOCK, _scales16, _split_nibbles)


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=iq4_nl_dot_rows,
    by_tiles=True,
    unpack_rows=iq4_nl_unpack_rows,
    unpack_tile=iq4_nl_unpack_tile,
)
