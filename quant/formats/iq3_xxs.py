"""IQ3_XXS: 256 columns in 98 bytes; four columns are a point of a grid of 256, each with a sign.

 0  float16 d
 2  uint8 point[64]
66  uint32 word[8]     of 32 columns: 7 signs of each 8 in bits 0, 7, 14 and 21 and up (the eighth makes the number of
                       minus signs even), a scale in bits 28 to 31;  value = d * (1/2 + scale) / 2 * point, or less that
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import scales_of
from quant.blocks.fields import load_i32x8, spread
from quant.blocks.grids import grid, no_high_bits, points
from quant.blocks.signs import (
    OFFSET,
    dot_by_32,
    interleave,
    offset,
    parity_signs,
    plus_minus,
    store_parts,
    tile_minima,
    with_parity,
)
from quant.formats import Format, blocks_of, dot_rows, emit, halves, rows_of, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (
    add,
    fma,
    load_f16,
    load_i8x64,
    mul,
    prefetch,
    shift_right,
    splat8,
    store_f32x8,
    sum_lanes,
    to_f32,
    zero_f32x16,
)
from quant.tile import transpose8

_AHEAD = 2156  # bytes: prefetch distance, 22 blocks
_find, _values = grid("IQ3_XXS", 256, 4, (4, 12, 20, 28, 36, 44, 52, 62))
_SEVEN_BITS = spread(7)
_HALF, _QUARTER = np.float32(0.5), np.float32(0.25)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 98)
    words = np.ascontiguousarray(blocks[..., 66:]).view(np.uint32)
    scales = halves(blocks[..., :2]) * (_HALF + (words >> 28).astype(np.float32)) * _HALF
    values = points("IQ3_XXS")[blocks[..., 2:66]].reshape(*words.shape, 4, 8)
    index = (words[..., None] >> np.array([0, 7, 14, 21], np.uint32) & 127).astype(np.uint8)
    return rows_of(scales[..., None, None] * values * plus_minus(with_parity(index)))


@inline
def _load_parts(w):
    return _values(_find(load_i8x64(w + 2), no_high_bits()))


@inline
def _load_scales(w, words):
    d = load_f16(w)
    return fma(to_f32(shift_right(words, 28)), splat8(d * _HALF), splat8(d * _QUARTER))


@dot_rows
def iq3_xxs_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    d_x = scales_of(x, columns)
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        for b in range(columns // 256):
            prefetch(w + _AHEAD)
            prefetch(w + _AHEAD + 64)
            words = load_i32x8(w + 66)
            parts, signs = _load_parts(w), parity_signs(_SEVEN_BITS(words))
            even, odd = dot_by_32(parts, signs, _load_scales(w, words), x + 256 * b, d_x + 32 * b, even, odd)
            w += 98
        emit(y + 4 * r, sum_lanes(add(even, odd)), alpha, accumulate)


@inline
def _unpack(w, q, step, scale):
    """One block: its four parts, `step` bytes apart; gives its scales."""
    words = load_i32x8(w + 66)
    scales = _load_scales(w, words)
    store_f32x8(scale, scales)
    store_parts(offset(_load_parts(w), parity_signs(_SEVEN_BITS(words))), q, step)
    return scales


@unpack_rows
def iq3_xxs_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales = _unpack(w, q + 256 * b, 64, scale + 32 * b)
        store_f32x8(minimum + 32 * b, mul(scales, splat8(OFFSET)))
        w += 98


@unpack_tile
def iq3_xxs_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for _ in range(columns // 256):
        for r in range(16):
            _unpack(w + r * row_bytes, tile + 64 * r, 1024, scratch + 32 * r)
        interleave(tile)
        transpose8(scratch, 32, scales, 64)
        tile_minima(scales, 8, minima)
        w, tile, scales, minima = w + 98, tile + 4096, scales + 512, minima + 512


FORMAT = Format("IQ3_XXS", 256, 98, "q8", 32, dequantize, iq3_xxs_dot_rows, iq3_xxs_unpack_rows, iq3_xxs_unpack_tile)
