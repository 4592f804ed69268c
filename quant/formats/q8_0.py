"""Q8_0: 32 columns in 34 bytes.

0  float16 d
2  int8 q[32]        value = d * q
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks32 import dot_blocks, halves8, packed4, unpack_blocks
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.int8_dot import BIAS, dot_wide
from quant.jit import inline
from quant.simd import bit_xor, load_f16, load_i8x32, mul, splat, splat8, store_f32x16, store_i8x64
from quant.tile import gather_f16, turn4

BLOCK = Block("Q8_0", number=8, columns=32, d=Scale("f16", 1 / 127), qs=32)

_BIAS = np.float32(BIAS)
_d8 = halves8(BLOCK.bytes, BLOCK.d)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, qs = BLOCK.split(data)
    return rows_of(d * qs.view(np.int8))


@inline
def _scales8(w):
    d = _d8(w)
    return d, mul(d, splat8(_BIAS))


@inline
def _scales1(w):
    d = load_f16(w + BLOCK.d)
    return d, _BIAS * d


@inline
def _load4(w):
    return bit_xor(packed4(w + BLOCK.qs, BLOCK.bytes), BIAS), bit_xor(packed4(w + BLOCK.qs + 16, BLOCK.bytes), BIAS)


@inline
def _load1(w):
    return bit_xor(load_i8x32(w + BLOCK.qs), BIAS)


@inline
def _dot(acc, q, x):
    return dot_wide(acc, q, x)


@dot_rows
def q8_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_blocks(w, rows, columns, x, y, alpha, accumulate, BLOCK, _scales8, _scales1, _load4, _load1, _dot)


@unpack_rows
def q8_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_blocks(w, rows, columns, q, scale, minimum, BLOCK, _scales1, _load1)


@unpack_tile
def q8_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for b in range(columns // 32):
        d = gather_f16(w + BLOCK.d, row_bytes)
        store_f32x16(scales + 64 * b, d)
        store_f32x16(minima + 64 * b, mul(d, splat(_BIAS)))
        for half in range(2):
            place = tile + 512 * b + 256 * half
            s0, s1, s2, s3 = turn4(w + BLOCK.qs + 16 * half, row_bytes)
            store_i8x64(place, bit_xor(s0, BIAS))
            store_i8x64(place + 64, bit_xor(s1, BIAS))
            store_i8x64(place + 128, bit_xor(s2, BIAS))
            store_i8x64(place + 192, bit_xor(s3, BIAS))
        w += BLOCK.bytes


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=q8_0_dot_rows,
    by_tiles=True,
    unpack_rows=q8_0_unpack_rows,
    unpack_tile=q8_0_unpack_tile,
)
