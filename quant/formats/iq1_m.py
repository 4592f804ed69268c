"""IQ1_M: 256 columns in 56 bytes; eight columns are a point of IQ1_S's grid of 2048, whose values are -1, 0 and 1.

 0  uint8 low[32]      index of a point, the lowest 8 bits of 11
32  uint4 high[32]     its highest 3 bits, and a sign; low nibbles first
48  uint16 word[4]     of 64 columns: four scales of 3 bits, then 4 bits of the float16 d, its lowest first
    value = d * (1 + 2 * scale) * (point + 1/8), or - 1/8 where the sign is set
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, halves, rows_of
from quant.blocks.fields import both_nibbles, f16_of, load_u16x4, nibbles, spread, u8_to_f32
from quant.blocks.grid_rows import add_by_16, dot_pairs
from quant.blocks.grids import add_to_points, grid, points
from quant.blocks.signs import interleave, store_parts
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (
    bit_and,
    bit_xor,
    concat,
    fma,
    load_f32x16,
    load_i8x16,
    load_i8x32,
    load_i64,
    mul,
    shift_right,
    splat,
    store_f32x16,
    zero_f32x16,
)
from quant.tile import transpose16

BLOCK = Block("IQ1_M", number=29, columns=256, qs=32, qh=16, scales=Scale("f16 in nibbles", 1 / 8))

_find, _values = grid("IQ1_S", 2048, 8, (0, 8, 16))
_THREE_BITS = spread(3)
_QUARTER, _EIGHTH, _NINE = np.float32(1 / 4), np.float32(1 / 8), np.float32(9)


def decoded(scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The float16 in the top nibbles of four uint16, lowest bits first, uint8 [..., 8] -> float32 [..., 1]."""
    words = np.ascontiguousarray(scales).view(np.uint16)
    bits = np.bitwise_or.reduce(words >> 12 << np.array([0, 4, 8, 12], np.uint16), axis=-1, keepdims=True)
    return halves(bits.view(np.uint8))


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    qs, qh, packed = BLOCK.split(data)
    words = np.ascontiguousarray(packed).view(np.uint16)
    high = nibbles(qh).astype(np.uint16)
    values = points("IQ1_S")[qs | (high & 7) << 8].reshape(*qs.shape[:2], 16, 2, 8)
    shift = np.where(high & 8, np.float32(-1 / 8), np.float32(1 / 8)).reshape(*values.shape[:4], 1)
    scales = decoded(packed) * (
        1 + 2 * (words[..., None] >> np.array([0, 3, 6, 9], np.uint16) & 7).reshape(*qs.shape[:2], 16)
    )
    return rows_of(scales[..., None, None] * (values + shift))


@inline
def _load_parts(w, second):
    """Eight parts, 8 * point + 8 and 1 + 1 or 1 - 1: of this block, and of a second one."""
    high = both_nibbles(concat(load_i8x16(w + BLOCK.qh), load_i8x16(second + BLOCK.qh)))
    parts = _values(_find(concat(load_i8x32(w + BLOCK.qs), load_i8x32(second + BLOCK.qs)), high))
    return add_to_points(parts, shift_right(bit_xor(bit_and(high, 8), 8), 2))


@inline
def _load_scales(w):
    """An eighth of each scale, and nine times that, which is what is taken off."""
    word = load_i64(w + BLOCK.scales)
    d = f16_of((word >> 12 & 0xF) | (word >> 24 & 0xF0) | (word >> 36 & 0xF00) | (word >> 48 & 0xF000))
    scales = u8_to_f32(_THREE_BITS(load_u16x4(w + BLOCK.scales)))
    scales = fma(scales, splat(d * _QUARTER), splat(d * _EIGHTH))
    return scales, mul(scales, splat(_NINE))


@inline
def _load(w, second):
    parts, (scale, minimum), (other, least) = _load_parts(w, second), _load_scales(w), _load_scales(second)
    return (parts[:4], scale, minimum), (parts[4:], other, least)


@dot_rows
def iq1_m_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; points of two blocks are looked up together."""
    dot_pairs(w, rows, columns, x, y, alpha, accumulate, BLOCK, _load, add_by_16, zero_f32x16)


@inline
def _unpack(w, parts, q, step, scale):
    """One block: its four parts, `step` bytes apart, and its scales; gives its minima."""
    scales, minima = _load_scales(w)
    store_f32x16(scale, scales)
    store_parts(parts, q, step)
    return minima


@unpack_rows
def iq1_m_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        store_f32x16(minimum + 64 * b, _unpack(w, _load_parts(w, w)[:4], q + 256 * b, 64, scale + 64 * b))
        w += BLOCK.bytes


@unpack_tile
def iq1_m_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for _ in range(columns // 256):
        for r in range(0, 16, 2):
            first, second = w + r * row_bytes, w + (r + 1) * row_bytes
            parts = _load_parts(first, second)
            _unpack(first, parts[:4], tile + 64 * r, 1024, scratch + 64 * r)
            _unpack(second, parts[4:], tile + 64 * r + 64, 1024, scratch + 64 * r + 64)
        interleave(tile)
        transpose16(scratch, 64, scales, 64)
        for i in range(16):
            store_f32x16(minima + 64 * i, mul(load_f32x16(scales + 64 * i), splat(_NINE)))
        w, tile, scales, minima = w + BLOCK.bytes, tile + 4096, scales + 1024, minima + 1024


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=16,
    dequantize=dequantize,
    dot_rows=iq1_m_dot_rows,
    unpack_rows=iq1_m_unpack_rows,
    unpack_tile=iq1_m_unpack_tile,
    bits=6,  # 0 to 18
    by_tiles=True,
)
