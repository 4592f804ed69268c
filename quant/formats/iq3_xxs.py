"""IQ3_XXS: 256 columns in 98 bytes; four columns are a point of a grid of 256, each with a sign.

 0  float16 d
 2  uint8 point[64]
66  uint32 word[8]     of 32 columns: 7 signs of each 8 in bits 0, 7, 14 and 21 and up (the eighth makes the number of
                       minus signs even), a scale in bits 28 to 31;  value = d * (1/2 + scale) / 2 * point, or less that
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.fields import load_i32x8, spread
from quant.blocks.grid_rows import add_signed_by_32, dot_singles, store_by_32, tile_singles, turn_by_32, unpack_singles
from quant.blocks.grids import grid, no_high_bits, points
from quant.blocks.signs import (
    parity_signs,
    plus_minus,
    with_parity,
)
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (
    fma,
    load_f16,
    load_i8x64,
    shift_right,
    splat8,
    to_f32,
    zero_f32x8,
)

BLOCK = Block("IQ3_XXS", number=18, columns=256, d=Scale("f16", 1 / 128), qs=64, scales_and_signs=32)

_find, _values = grid("IQ3_XXS", 256, 4, (4, 12, 20, 28, 36, 44, 52, 62))
_SEVEN_BITS = spread(7)
_HALF, _QUARTER = np.float32(0.5), np.float32(0.25)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, qs, scales_and_signs = BLOCK.split(data)
    words = np.ascontiguousarray(scales_and_signs).view(np.uint32)
    scales = d * (_HALF + (words >> 28).astype(np.float32)) * _HALF
    values = points("IQ3_XXS")[qs].reshape(*words.shape, 4, 8)
    index = (words[..., None] >> np.array([0, 7, 14, 21], np.uint32) & 127).astype(np.uint8)
    return rows_of(scales[..., None, None] * values * plus_minus(with_parity(index)))


@inline
def _load(w):
    words, d = load_i32x8(w + BLOCK.scales_and_signs), load_f16(w + BLOCK.d)
    scales = fma(to_f32(shift_right(words, 28)), splat8(d * _HALF), splat8(d * _QUARTER))
    return _values(_find(load_i8x64(w + BLOCK.qs), no_high_bits())), parity_signs(_SEVEN_BITS(words)), scales


@dot_rows
def iq3_xxs_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_singles(w, rows, columns, x, y, alpha, accumulate, BLOCK, _load, add_signed_by_32, zero_f32x8)


@unpack_rows
def iq3_xxs_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_singles(w, rows, columns, q, scale, minimum, BLOCK, 8, _load, store_by_32)


@unpack_tile
def iq3_xxs_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    tile_singles(
        w, row_bytes, columns, tile, scales, minima, scratch, BLOCK, 8, _load, store_by_32, turn_by_32
    )  # fmt: skip


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=iq3_xxs_dot_rows,
    unpack_rows=iq3_xxs_unpack_rows,
    unpack_tile=iq3_xxs_unpack_tile,
    by_tiles=True,
)
