"""IQ2_S: 256 columns in 82 bytes; eight columns are a point of a grid of 1024, each with a sign.

 0  float16 d
 2  uint8 low[32]      index of a point, the lowest 8 bits of 10
34  uint1 minus[256]
66  uint2 high[32]     its highest 2 bits
74  uint4 scale[16]    of 16 columns, low nibbles first;  value = d * (1/2 + scale) / 4 * point, or less that
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.fields import load_nibbles, load_u8x8, nibbles, spread
from quant.blocks.grid_rows import add_signed_by_16, dot_pairs, store_by_16, tile_pairs, turn_by_16, unpack_pairs
from quant.blocks.grids import grid, points
from quant.blocks.signs import load_signs, plus_minus
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (
    concat,
    fma,
    load_f16,
    load_i8x32,
    splat,
    zero_f32x16,
)

BLOCK = Block("IQ2_S", number=22, columns=256, d=Scale("f16", 1 / 64), qs=32, signs=32, qh=8, scales=8)

_find, _values = grid("IQ2_S", 1024, 8, (8, 25, 43))
_TWO_BITS = spread(2)
_HALF, _QUARTER, _EIGHTH = np.float32(1 / 2), np.float32(1 / 4), np.float32(1 / 8)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, qs, signs, qh, scales = BLOCK.split(data)
    high = qh[..., None] >> np.array([0, 2, 4, 6], np.uint8) & 3
    index = qs | high.reshape(*qs.shape[:2], 32).astype(np.uint16) << 8
    values = points("IQ2_S")[index].reshape(*qs.shape[:2], 16, 2, 8)
    steps = d * (_HALF + nibbles(scales)) * _QUARTER
    return rows_of(steps[..., None, None] * values * plus_minus(signs).reshape(values.shape))


@inline
def _load_parts(w, second):
    """Eight parts: of this block, and of a second one."""
    low = concat(load_i8x32(w + BLOCK.qs), load_i8x32(second + BLOCK.qs))
    return _values(_find(low, _TWO_BITS(concat(load_u8x8(w + BLOCK.qh), load_u8x8(second + BLOCK.qh)))))


@inline
def _load_scales(w):
    d = load_f16(w + BLOCK.d)
    return fma(load_nibbles(w + BLOCK.scales), splat(d * _QUARTER), splat(d * _EIGHTH))


@inline
def _load(w, second):
    parts = _load_parts(w, second)
    first = parts[:4], load_signs(w + BLOCK.signs), _load_scales(w)
    return first, (parts[4:], load_signs(second + BLOCK.signs), _load_scales(second))


@dot_rows
def iq2_s_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; points of two blocks are looked up together."""
    dot_pairs(w, rows, columns, x, y, alpha, accumulate, BLOCK, _load, add_signed_by_16, zero_f32x16)


@unpack_rows
def iq2_s_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_pairs(w, rows, columns, q, scale, minimum, BLOCK, 16, _load, store_by_16)


@unpack_tile
def iq2_s_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    tile_pairs(
        w, row_bytes, columns, tile, scales, minima, scratch, BLOCK, 16, _load, store_by_16, turn_by_16
    )  # fmt: skip


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=16,
    dequantize=dequantize,
    dot_rows=iq2_s_dot_rows,
    unpack_rows=iq2_s_unpack_rows,
    unpack_tile=iq2_s_unpack_tile,
    by_tiles=True,
)
