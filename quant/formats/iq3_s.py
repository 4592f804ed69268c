"""IQ3_S: 256 columns in 110 bytes; four columns are a point of a grid of 512, each with a sign.

  0  float16 d
  2  uint8 low[64]     index of a point, the lowest 8 bits of 9
 66  uint1 high[64]    its highest bit
 74  uint1 minus[256]
106  uint4 scale[8]    of 32 columns, low nibbles first;  value = d * (1 + 2 * scale) * point, or less that
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import scales_of
from quant.blocks.fields import bits_as_bytes, nibbles
from quant.blocks.grids import grid, points
from quant.blocks.signs import (
    OFFSET,
    dot_by_32,
    interleave,
    load_signs,
    offset,
    plus_minus,
    store_parts,
    tile_minima,
)
from quant.formats import Format, blocks_of, dot_rows, emit, halves, rows_of, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (
    add,
    fma,
    load_f16,
    load_i8x64,
    load_i64,
    load_u32,
    mul,
    permute,
    prefetch,
    splat8,
    store_f32x8,
    sum_lanes,
    u32x2_to_f32x8,
    zero_f32x16,
)
from quant.tile import transpose8

_AHEAD = 2200  # bytes: prefetch distance, 20 blocks
_find, _values = grid("IQ3_S", 512, 4, range(1, 16, 2))
_IN_ORDER = permute([0, 4, 1, 5, 2, 6, 3, 7])


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 110)
    high = np.unpackbits(blocks[..., 66:74], axis=-1, bitorder="little").astype(np.uint16)
    values = points("IQ3_S")[blocks[..., 2:66] | high << 8].reshape(*blocks.shape[:2], 8, 32)
    signs = plus_minus(blocks[..., 74:106]).reshape(values.shape)
    scales = halves(blocks[..., :2]) * (1 + 2 * nibbles(blocks[..., 106:]))
    return rows_of(scales[..., None] * values * signs)


@inline
def _load_scales(w):
    packed, d = load_u32(w + 106), load_f16(w)
    scales = _IN_ORDER(u32x2_to_f32x8(packed & 0x0F0F0F0F, packed >> 4 & 0x0F0F0F0F))
    return fma(scales, splat8(d + d), splat8(d))


@inline
def _load_parts(w):
    return _values(_find(load_i8x64(w + 2), bits_as_bytes(load_i64(w + 66))))


@dot_rows
def iq3_s_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    d_x = scales_of(x, columns)
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        for b in range(columns // 256):
            prefetch(w + _AHEAD)
            prefetch(w + _AHEAD + 64)
            parts, signs = _load_parts(w), load_signs(w + 74)
            even, odd = dot_by_32(parts, signs, _load_scales(w), x + 256 * b, d_x + 32 * b, even, odd)
            w += 110
        emit(y + 4 * r, sum_lanes(add(even, odd)), alpha, accumulate)


@inline
def _unpack(w, q, step, scale):
    """One block: its four parts, `step` bytes apart; gives its scales."""
    scales = _load_scales(w)
    store_f32x8(scale, scales)
    store_parts(offset(_load_parts(w), load_signs(w + 74)), q, step)
    return scales


@unpack_rows
def iq3_s_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales = _unpack(w, q + 256 * b, 64, scale + 32 * b)
        store_f32x8(minimum + 32 * b, mul(scales, splat8(OFFSET)))
        w += 110


@unpack_tile
def iq3_s_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for _ in range(columns // 256):
        for r in range(16):
            _unpack(w + r * row_bytes, tile + 64 * r, 1024, scratch + 32 * r)
        interleave(tile)
        transpose8(scratch, 32, scales, 64)
        tile_minima(scales, 8, minima)
        w, tile, scales, minima = w + 110, tile + 4096, scales + 512, minima + 512


FORMAT = Format("IQ3_S", 256, 110, "q8", 32, dequantize, iq3_s_dot_rows, iq3_s_unpack_rows, iq3_s_unpack_tile)
