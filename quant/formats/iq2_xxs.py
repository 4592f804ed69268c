"""IQ2_XXS: 256 columns in 66 bytes; eight columns are a point of a grid of 256, each with a sign.

0  float16 d
2  of 32 columns, eight times: uint8 point[4], and a word: 7 signs of each 8 columns in bits 0, 7, 14 and 21 and up (the
   eighth makes the number of minus signs even), a scale in bits 28 to 31
   value = d * (1/2 + scale) / 4 * point, or less that
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.fields import as_i32, even_words, odd_words, spread
from quant.blocks.grid_rows import add_signed_by_32, dot_pairs, store_by_32, tile_pairs, turn_by_32, unpack_pairs
from quant.blocks.grids import grid, no_high_bits, points
from quant.blocks.signs import (
    parity_signs,
    plus_minus,
    with_parity,
)
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
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
    zero_f32x8,
)

BLOCK = Block("IQ2_XXS", number=16, columns=256, d=Scale("f16", 1 / 64), qs=64)

_find, _values = grid("IQ2_XXS", 256, 8, (8, 25, 43))
_SEVEN_BITS = spread(7)
_FIRST, _SECOND = permute(range(8)), permute(range(8, 16))
_HALF, _QUARTER = np.float32(1 / 2), np.float32(1 / 4)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, qs = BLOCK.split(data)
    groups = qs.reshape(*qs.shape[:2], 8, 8)
    words = np.ascontiguousarray(groups[..., 4:]).view(np.uint32)
    index = (words >> np.array([0, 7, 14, 21], np.uint32) & 127).astype(np.uint8)
    scales = d * (_HALF + (words[..., 0] >> 28).astype(np.float32)) * _QUARTER
    values = points("IQ2_XXS")[groups[..., :4]]
    return rows_of(scales[..., None, None] * values * plus_minus(with_parity(index)))


@inline
def _load(w, second):
    a, b = load_i8x64(w + BLOCK.qs), load_i8x64(second + BLOCK.qs)
    words = as_i32(odd_words(a, b))
    d = mul(concat(splat8(load_f16(w + BLOCK.d)), splat8(load_f16(second + BLOCK.d))), splat(_QUARTER))
    scales = fma(to_f32(shift_right(words, 28)), d, mul(d, splat(_HALF)))
    parts, signs = _values(_find(even_words(a, b), no_high_bits())), parity_signs(_SEVEN_BITS(words))
    return (parts[:4], signs[:4], _FIRST(scales)), (parts[4:], signs[4:], _SECOND(scales))


@dot_rows
def iq2_xxs_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; points of two blocks are looked up together."""
    dot_pairs(w, rows, columns, x, y, alpha, accumulate, BLOCK, _load, add_signed_by_32, zero_f32x8)


@unpack_rows
def iq2_xxs_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_pairs(w, rows, columns, q, scale, minimum, BLOCK, 8, _load, store_by_32)


@unpack_tile
def iq2_xxs_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    tile_pairs(
        w, row_bytes, columns, tile, scales, minima, scratch, BLOCK, 8, _load, store_by_32, turn_by_32
    )  # fmt: skip


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=iq2_xxs_dot_rows,
    unpack_rows=iq2_xxs_unpack_rows,
    unpack_tile=iq2_xxs_unpack_tile,
    by_tiles=True,
)
