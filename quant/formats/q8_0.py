"""Q8_0: 32 columns in 34 bytes.

0  float16 d
2  int8 q[32]        value = d * q
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.blocks.blocks32 import dot_blocks, halves8, packed4, unpack_blocks
from quant.formats import Format, blocks_of, dot_rows, halves, rows_of, unpack_rows, unpack_tile
from quant.int8_dot import BIAS, dot_wide
from quant.jit import inline
from quant.simd import bit_xor, load_f16, load_i8x32, mul, splat, splat8, store_f32x16, store_i8x64
from quant.tile import gather_f16, turn4

_BIAS = np.float32(BIAS)
_d8 = halves8(34, 0)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 34)
    return rows_of(halves(blocks[..., :2]) * blocks[..., 2:].view(np.int8))


@inline
def _scales8(w):
    d = _d8(w)
    return d, mul(d, splat8(_BIAS))


@inline
def _scales1(w):
    d = load_f16(w)
    return d, _BIAS * d


@inline
def _four(w):
    return bit_xor(packed4(w + 2, 34), BIAS), bit_xor(packed4(w + 18, 34), BIAS)


@inline
def _one(w):
    return bit_xor(load_i8x32(w + 2), BIAS)


@inline
def _dot(acc, q, x):
    return dot_wide(acc, q, x)


@dot_rows
def q8_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_blocks(w, rows, columns, x, y, alpha, accumulate, 34, _scales8, _scales1, _four, _one, _dot)


@unpack_rows
def q8_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_blocks(w, rows, columns, q, scale, minimum, 34, _scales1, _one)


@unpack_tile
def q8_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for b in range(columns // 32):
        d = gather_f16(w, row_bytes)
        store_f32x16(scales + 64 * b, d)
        store_f32x16(minima + 64 * b, mul(d, splat(_BIAS)))
        for half in range(2):
            place = tile + 512 * b + 256 * half
            s0, s1, s2, s3 = turn4(w + 2 + 16 * half, row_bytes)
            store_i8x64(place, bit_xor(s0, BIAS))
            store_i8x64(place + 64, bit_xor(s1, BIAS))
            store_i8x64(place + 128, bit_xor(s2, BIAS))
            store_i8x64(place + 192, bit_xor(s3, BIAS))
        w += 34


FORMAT = Format("Q8_0", 32, 34, "q8", 32, dequantize, q8_0_dot_rows, q8_0_unpack_rows, q8_0_unpack_tile)
