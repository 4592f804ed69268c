"""IQ1_S: 256 columns in 50 bytes; eight columns are a point of a grid of 2048 whose values are -1, 0 and 1.

 0  float16 d
 2  uint8 low[32]      index of a point, the lowest 8 bits of 11
34  uint16 word[8]     of 32 columns: the highest 3 bits of four indices, a scale in bits 12 to 14, a sign in bit 15
    value = d * (1 + 2 * scale) * (point + 1/8), or - 1/8 where the sign is set
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.fields import load_u16x8, spread
from quant.blocks.grid_rows import add_by_32, dot_pairs
from quant.blocks.grids import grid, points
from quant.blocks.signs import interleave, store_parts
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (
    bit_and,
    concat,
    fma,
    load_f16,
    load_i8x32,
    mul,
    shift_right,
    splat8,
    store_f32x8,
    to_f32,
    zero_f32x8,
)
from quant.tile import transpose8

BLOCK = Block("IQ1_S", number=19, columns=256, d=Scale("f16", 1 / 8), qs=32, qh=16)

_find, _values = grid("IQ1_S", 2048, 8, (0, 1, 2))
_THREE_BITS = spread(3)
_QUARTER, _SEVEN_EIGHTHS = np.float32(1 / 4), np.float32(7 / 8)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, qs, qh = BLOCK.split(data)
    words = np.ascontiguousarray(qh).view(np.uint16)
    high = words[..., None] >> np.array([0, 3, 6, 9], np.uint16) & 7
    values = points("IQ1_S")[qs.reshape(high.shape) | high << 8]
    scales = d * (1 + 2 * (words >> 12 & 7))
    shift = np.where(words >> 15, np.float32(-1 / 8), np.float32(1 / 8))
    return rows_of(scales[..., None, None] * (values + shift[..., None, None]))


@inline
def _load_parts(w, second):
    """Eight parts, with 1 added: of this block, and of a second one."""
    words = concat(load_u16x8(w + BLOCK.qh), load_u16x8(second + BLOCK.qh))
    return _values(_find(concat(load_i8x32(w + BLOCK.qs), load_i8x32(second + BLOCK.qs)), _THREE_BITS(words)))


@inline
def _load_scales(w):
    """Scales, and what they leave to be taken off: 1 - 1/8 or 1 + 1/8 of them."""
    words, d = load_u16x8(w + BLOCK.qh), load_f16(w + BLOCK.d)
    scales = fma(to_f32(bit_and(shift_right(words, 12), 7)), splat8(d + d), splat8(d))
    return scales, mul(scales, fma(to_f32(shift_right(words, 15)), splat8(_QUARTER), splat8(_SEVEN_EIGHTHS)))


@inline
def _load(w, second):
    parts, (scale, minimum), (other, least) = _load_parts(w, second), _load_scales(w), _load_scales(second)
    return (parts[:4], scale, minimum), (parts[4:], other, least)


@dot_rows
def iq1_s_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; points of two blocks are looked up together."""
    dot_pairs(w, rows, columns, x, y, alpha, accumulate, BLOCK, _load, add_by_32, zero_f32x8)


@inline
def _unpack(w, parts, q, step, scale, minimum):
    """One block: its four parts, `step` bytes apart, its scales and minima."""
    scales, minima = _load_scales(w)
    store_f32x8(scale, scales)
    store_f32x8(minimum, minima)
    store_parts(parts, q, step)


@unpack_rows
def iq1_s_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        _unpack(w, _load_parts(w, w)[:4], q + 256 * b, 64, scale + 32 * b, minimum + 32 * b)
        w += BLOCK.bytes


@unpack_tile
def iq1_s_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for _ in range(columns // 256):
        for r in range(0, 16, 2):
            first, second, at = w + r * row_bytes, w + (r + 1) * row_bytes, scratch + 32 * r
            parts = _load_parts(first, second)
            _unpack(first, parts[:4], tile + 64 * r, 1024, at, at + 512)
            _unpack(second, parts[4:], tile + 64 * r + 64, 1024, at + 32, at + 544)
        interleave(tile)
        transpose8(scratch, 32, scales, 64)
        transpose8(scratch + 512, 32, minima, 64)
        w, tile, scales, minima = w + BLOCK.bytes, tile + 4096, scales + 512, minima + 512


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=iq1_s_dot_rows,
    unpack_rows=iq1_s_unpack_rows,
    unpack_tile=iq1_s_unpack_tile,
    bits=4,  # 0 to 2
    by_tiles=True,
)
