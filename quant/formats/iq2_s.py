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

from quant.activation import scales_of
from quant.blocks.fields import load_nibbles, load_u8x8, nibbles, spread
from quant.blocks.grids import grid, points
from quant.blocks.signs import OFFSET, dot_by_16, interleave, load_signs, offset, plus_minus, store_parts, tile_minima
from quant.formats import Format, blocks_of, dot_rows, emit, halves, rows_of, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (
    add,
    concat,
    fma,
    load_f16,
    load_i8x32,
    mul,
    prefetch,
    splat,
    store_f32x16,
    sum_lanes,
    zero_f32x16,
)
from quant.tile import transpose16

_AHEAD = 2132  # bytes: prefetch distance, 26 blocks
_find, _values = grid("IQ2_S", 1024, 8, (8, 25, 43))
_TWO_BITS = spread(2)
_HALF, _QUARTER, _EIGHTH = np.float32(1 / 2), np.float32(1 / 4), np.float32(1 / 8)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 82)
    high = blocks[..., 66:74, None] >> np.array([0, 2, 4, 6], np.uint8) & 3
    index = blocks[..., 2:34] | high.reshape(*blocks.shape[:2], 32).astype(np.uint16) << 8
    values = points("IQ2_S")[index].reshape(*blocks.shape[:2], 16, 2, 8)
    signs = plus_minus(blocks[..., 34:66]).reshape(values.shape)
    scales = halves(blocks[..., :2]) * (_HALF + nibbles(blocks[..., 74:])) * _QUARTER
    return rows_of(scales[..., None, None] * values * signs)


@inline
def _load_parts(w, second):
    """Eight parts: of this block, and of a second one."""
    low = concat(load_i8x32(w + 2), load_i8x32(second + 2))
    return _values(_find(low, _TWO_BITS(concat(load_u8x8(w + 66), load_u8x8(second + 66)))))


@inline
def _load_scales(w):
    d = load_f16(w)
    return fma(load_nibbles(w + 74), splat(d * _QUARTER), splat(d * _EIGHTH))


@dot_rows
def iq2_s_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; points of two blocks are looked up together."""
    d_x, blocks = scales_of(x, columns), columns // 256
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        for b in range(0, blocks, 2):
            prefetch(w + _AHEAD)
            prefetch(w + _AHEAD + 64)
            prefetch(w + _AHEAD + 128)
            second = w + 82 if b + 1 < blocks else w
            parts, at, d = _load_parts(w, second), x + 256 * b, d_x + 32 * b
            even, odd = dot_by_16(parts[:4], load_signs(w + 34), _load_scales(w), at, d, even, odd)
            if b + 1 < blocks:
                signs, scales = load_signs(second + 34), _load_scales(second)
                even, odd = dot_by_16(parts[4:], signs, scales, at + 256, d + 32, even, odd)
            w = second + 82
        emit(y + 4 * r, sum_lanes(add(even, odd)), alpha, accumulate)


@inline
def _unpack(w, parts, q, step, scale):
    """One block: its four parts, `step` bytes apart; gives its scales."""
    scales = _load_scales(w)
    store_f32x16(scale, scales)
    store_parts(offset(parts, load_signs(w + 34)), q, step)
    return scales


@unpack_rows
def iq2_s_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales = _unpack(w, _load_parts(w, w)[:4], q + 256 * b, 64, scale + 64 * b)
        store_f32x16(minimum + 64 * b, mul(scales, splat(OFFSET)))
        w += 82


@unpack_tile
def iq2_s_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for _ in range(columns // 256):
        for r in range(0, 16, 2):
            first, second = w + r * row_bytes, w + (r + 1) * row_bytes
            parts = _load_parts(first, second)
            _unpack(first, parts[:4], tile + 64 * r, 1024, scratch + 64 * r)
            _unpack(second, parts[4:], tile + 64 * r + 64, 1024, scratch + 64 * r + 64)
        interleave(tile)
        transpose16(scratch, 64, scales, 64)
        tile_minima(scales, 16, minima)
        w, tile, scales, minima = w + 82, tile + 4096, scales + 1024, minima + 1024


FORMAT = Format("IQ2_S", 256, 82, "q8", 16, dequantize, iq2_s_dot_rows, iq2_s_unpack_rows, iq2_s_unpack_tile)
