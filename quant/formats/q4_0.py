"""Q4_0: 32 columns in 18 bytes.

0  float16 d
2  uint4 q[32]       byte i holds column i (low) and column i + 16 (high);  value = d * (q - 8)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.blocks.blocks32 import dot_blocks, halves8, packed4, unpack_blocks, unpack_nibbles
from quant.formats import Format, blocks_of, dot_rows, halves, rows_of, unpack_rows, unpack_tile
from quant.formats.q4_1 import both, dot
from quant.jit import inline
from quant.simd import concat, load_f16, load_i8x16, mul, splat, splat8
from quant.tile import gather_f16

_EIGHT = np.float32(8)
_d8 = halves8(18, 0)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 18)
    nibbles = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1).astype(np.int8)
    return rows_of(halves(blocks[..., :2]) * (nibbles - np.int8(8)))


@inline
def _scales8(w):
    d = _d8(w)
    return d, mul(d, splat8(_EIGHT))


@inline
def _scales1(w):
    d = load_f16(w)
    return d, _EIGHT * d


@inline
def _scales16(w, row_bytes):
    d = gather_f16(w, row_bytes)
    return d, mul(d, splat(_EIGHT))


@inline
def _four(w):
    return both(packed4(w + 2, 18))


@inline
def _one(w):
    low, high = both(load_i8x16(w + 2))
    return concat(low, high)


@dot_rows
def q4_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_blocks(w, rows, columns, x, y, alpha, accumulate, 18, _scales8, _scales1, _four, _one, dot)


@unpack_rows
def q4_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_blocks(w, rows, columns, q, scale, minimum, 18, _scales1, _one)


@unpack_tile
def q4_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    unpack_nibbles(w, row_bytes, columns, tile, scales, minima, 18, 2, _scales16, both)


FORMAT = Format("Q4_0", 32, 18, "q8", 32, dequantize, q4_0_dot_rows, q4_0_unpack_rows, q4_0_unpack_tile)
