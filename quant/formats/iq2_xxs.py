"""IQ2_XXS: 256 columns in 66 bytes; eight columns are a point of a grid of 256, each with a sign.

0  float16 d
2  of 32 columns, eight times: uint8 point[4], and a word: 7 signs of each 8 columns in bits 0, 7, 14 and 21 and up (the
   eighth makes the number of minus signs even), a scale in bits 28 to 31
   value = d * (1/2 + scale) / 4 * point, or less that
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import scales_of
from quant.blocks.fields import as_i32, even_words, odd_words, spread
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
    concat,
    fma,
    load_f16,
    load_i8x64,
    mul,
    permute,
    prefetch,
    shift_right,
    splat,
    splat8,
    store_f32x8,
    store_f32x16,
    sum_lanes,
    to_f32,
    zero_f32x16,
)
from quant.tile import transpose8

_AHEAD = 2112  # bytes: prefetch distance, 32 blocks
_find, _values = grid("IQ2_XXS", 256, 8, (8, 25, 43))
_SEVEN_BITS = spread(7)
_FIRST, _SECOND = permute(range(8)), permute(range(8, 16))
_HALF, _QUARTER = np.float32(1 / 2), np.float32(1 / 4)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 66)
    groups = blocks[..., 2:].reshape(*blocks.shape[:2], 8, 8)
    words = np.ascontiguousarray(groups[..., 4:]).view(np.uint32)
    index = (words >> np.array([0, 7, 14, 21], np.uint32) & 127).astype(np.uint8)
    scales = halves(blocks[..., :2]) * (_HALF + (words[..., 0] >> 28).astype(np.float32)) * _QUARTER
    values = points("IQ2_XXS")[groups[..., :4]]
    return rows_of(scales[..., None, None] * values * plus_minus(with_parity(index)))


@inline
def _load(w, second):
    """Eight parts, their signs and scales (f32x16): of this block, and of a second one."""
    a, b = load_i8x64(w + 2), load_i8x64(second + 2)
    words = as_i32(odd_words(a, b))
    d = mul(concat(splat8(load_f16(w)), splat8(load_f16(second))), splat(_QUARTER))
    scales = fma(to_f32(shift_right(words, 28)), d, mul(d, splat(_HALF)))
    return _values(_find(even_words(a, b), no_high_bits())), parity_signs(_SEVEN_BITS(words)), scales


@dot_rows
def iq2_xxs_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; points of two blocks are looked up together."""
    d_x, blocks = scales_of(x, columns), columns // 256
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        for b in range(0, blocks, 2):
            prefetch(w + _AHEAD)
            prefetch(w + _AHEAD + 64)
            prefetch(w + _AHEAD + 128)
            second = w + 66 if b + 1 < blocks else w
            parts, signs, scales = _load(w, second)
            at, d = x + 256 * b, d_x + 32 * b
            even, odd = dot_by_32(parts[:4], signs[:4], _FIRST(scales), at, d, even, odd)
            if b + 1 < blocks:
                even, odd = dot_by_32(parts[4:], signs[4:], _SECOND(scales), at + 256, d + 32, even, odd)
            w = second + 66
        emit(y + 4 * r, sum_lanes(add(even, odd)), alpha, accumulate)


@unpack_rows
def iq2_xxs_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        parts, signs, scales = _load(w, w)
        store_f32x8(scale + 32 * b, _FIRST(scales))
        store_f32x8(minimum + 32 * b, mul(_FIRST(scales), splat8(OFFSET)))
        store_parts(offset(parts[:4], signs[:4]), q + 256 * b, 64)
        w += 66


@unpack_tile
def iq2_xxs_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for _ in range(columns // 256):
        for r in range(0, 16, 2):
            parts, signs, both = _load(w + r * row_bytes, w + (r + 1) * row_bytes)
            store_f32x16(scratch + 32 * r, both)
            store_parts(offset(parts[:4], signs[:4]), tile + 64 * r, 1024)
            store_parts(offset(parts[4:], signs[4:]), tile + 64 * r + 64, 1024)
        interleave(tile)
        transpose8(scratch, 32, scales, 64)
        tile_minima(scales, 8, minima)
        w, tile, scales, minima = w + 66, tile + 4096, scales + 512, minima + 512


FORMAT = Format("IQ2_XXS", 256, 66, "q8", 32, dequantize, iq2_xxs_dot_rows, iq2_xxs_unpack_rows, iq2_xxs_unpack_tile)
