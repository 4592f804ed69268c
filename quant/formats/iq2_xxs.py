"""IQ2_XXS: 256 columns in 66 bytes; eight columns are a point of a grid of 256, each with a sign.

0  float16 d
2  of 32 columns, eight times: uint8 point[4], and a word: 7 signs of each 8 columns in bits 0, 7, 14 and 21 and up (the
   eighth makes the number of minus signs even), a scale in bits 28 to 31
   value = d * (1/2 + scale) / 4 * point, or less that
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.blocks.fields import as_i32, even_words, odd_words, spread
from quant.blocks.grid_rows import dot_pairs, store_by_32, tile_pairs, turn_by_32, unpack_pairs
from quant.blocks.grids import grid, no_high_bits, points
from quant.blocks.signs import (
    dot_by_32,
    parity_signs,
    plus_minus,
    with_parity,
)
from quant.formats import Format, blocks_of, dot_rows, halves, rows_of, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (
    concat,
    fma,
    load_f16,
    load_i8x64,
    mul,
    permute,
    shift_right,
    splat,
    splat8,
    to_f32,
)

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
    a, b = load_i8x64(w + 2), load_i8x64(second + 2)
    words = as_i32(odd_words(a, b))
    d = mul(concat(splat8(load_f16(w)), splat8(load_f16(second))), splat(_QUARTER))
    scales = fma(to_f32(shift_right(words, 28)), d, mul(d, splat(_HALF)))
    parts, signs = _values(_find(even_words(a, b), no_high_bits())), parity_signs(_SEVEN_BITS(words))
    return (parts[:4], signs[:4], _FIRST(scales)), (parts[4:], signs[4:], _SECOND(scales))


@dot_rows
def iq2_xxs_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; points of two blocks are looked up together."""
    dot_pairs(w, rows, columns, x, y, alpha, accumulate, 66, _load, dot_by_32)


@unpack_rows
def iq2_xxs_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_pairs(w, rows, columns, q, scale, minimum, 66, 8, _load, store_by_32)


@unpack_tile
def iq2_xxs_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    tile_pairs(
        w, row_bytes, columns, tile, scales, minima, scratch, 66, 8, _load, store_by_32, turn_by_32
    )  # fmt: skip


FORMAT = Format("IQ2_XXS", 256, 66, "q8", 32, dequantize, iq2_xxs_dot_rows, iq2_xxs_unpack_rows, iq2_xxs_unpack_tile)
