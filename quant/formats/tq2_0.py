"""TQ2_0: 256 columns in 66 bytes, weights of three values.

 0  uint2 q[256]      half n, byte i < 32: columns 128n + i, + 32, + 64, + 96, lowest bits first
64  float16 d         value = d * (q - 1)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, Ternary, rows_of
from quant.blocks.blocks256 import dot_fours_by_32
from quant.blocks.group_sums import sums_by_group, sums_of_products
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.formats.q2_k import four_parts, quarters, quarters_of, spread_row, spread_tile
from quant.jit import inline
from quant.simd import (  # fmt: skip
    load_f16,
    load_i8x64,
    splat8,
    store_f32x8,
    store_f32x16,
)
from quant.tile import gather_f16

BLOCK = Block("TQ2_0", number=35, columns=256, qs=Ternary(64), d=Scale("f16", 1))

_sums = sums_by_group([(v, v, v + 4, v + 4) for v in range(4)], bits=2)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    qs, d = BLOCK.split(data)
    return rows_of(d * (quarters_of(qs).astype(np.int8) - np.int8(1)))


@inline
def _load_scales(w):
    """d of a block for each of its eight sub-blocks, as scale and as minimum, f32x8 each."""
    d = splat8(load_f16(w + BLOCK.d))
    return d, d


@inline
def _sums_of(w, x):
    q0, q1, q2, q3 = quarters(load_i8x64(w + BLOCK.qs))
    return sums_of_products(_sums, (q0, q1, q2, q3), x)


@dot_rows
def tq2_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_fours_by_32(w, rows, columns, x, y, alpha, accumulate, BLOCK, four_parts, _sums_of, _load_scales)


@unpack_rows
def tq2_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales, minima = _load_scales(w)
        store_f32x8(scale + 32 * b, scales)
        store_f32x8(minimum + 32 * b, minima)
        spread_row(w + BLOCK.qs, q + 256 * b)
        w += BLOCK.bytes


@inline
def fill_tile_scales(w, row_bytes, scales, minima):
    """The float16 at w of 16 rows, float32 [8 sub-blocks, 16 rows], as scale and as minimum."""
    d = gather_f16(w, row_bytes)
    for part in range(0, 512, 64):
        store_f32x16(scales + part, d)
        store_f32x16(minima + part, d)


@unpack_tile
def tq2_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for b in range(columns // 256):
        fill_tile_scales(w + BLOCK.d, row_bytes, scales + 512 * b, minima + 512 * b)
        spread_tile(w + BLOCK.qs, row_bytes, tile + 4096 * b)
        w += BLOCK.bytes


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=tq2_0_dot_rows,
    by_tiles=True,
    unpack_rows=tq2_0_unpack_rows,
    unpack_tile=tq2_0_unpack_tile,
    bits=4,
)
