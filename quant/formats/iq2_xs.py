"""IQ2_XS: 256 columns in 74 bytes; eight columns are a point of a grid of 512, each with a sign.

 0  float16 d
 2  uint16 word[32]    of 8 columns: the index of a point in the lowest 9 bits, then 7 signs (the eighth makes the number
                       of minus signs even)
66  uint4 scale[16]    of 16 columns, low nibbles first;  value = d * (1/2 + scale) / 4 * point, or less that
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.fields import even_bytes, load_nibbles, nibbles, odd_bytes
from quant.blocks.grid_rows import add_signed_by_16, dot_pairs, store_by_16, tile_pairs, turn_by_16, unpack_pairs
from quant.blocks.grids import grid, points
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
    splat,
    zero_f32x16,
)

BLOCK = Block("IQ2_XS", number=17, columns=256, d=Scale("f16", 1 / 64), qs=64, scales=8)

_find, _values = grid("IQ2_XS", 512, 8, (8, 25, 43))
_HALF, _QUARTER, _EIGHTH = np.float32(1 / 2), np.float32(1 / 4), np.float32(1 / 8)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, qs, scales = BLOCK.split(data)
    words = np.ascontiguousarray(qs).view(np.uint16)
    values = points("IQ2_XS")[words & 511].reshape(*qs.shape[:2], 16, 2, 8)
    signs = plus_minus(with_parity((words >> 9).astype(np.uint8))).reshape(values.shape)
    steps = d * (_HALF + nibbles(scales)) * _QUARTER
    return rows_of(steps[..., None, None] * values * signs)


@inline
def _load_scales(w):
    d = load_f16(w + BLOCK.d)
    return fma(load_nibbles(w + BLOCK.scales), splat(d * _QUARTER), splat(d * _EIGHTH))


@inline
def _load(w, second):
    a, b = load_i8x64(w + BLOCK.qs), load_i8x64(second + BLOCK.qs)
    high = odd_bytes(a, b)
    parts, signs = _values(_find(even_bytes(a, b), high)), parity_signs(shift_right(high, 1))
    return (parts[:4], signs[:4], _load_scales(w)), (parts[4:], signs[4:], _load_scales(second))


@dot_rows
def iq2_xs_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; points of two blocks are looked up together."""
    dot_pairs(w, rows, columns, x, y, alpha, accumulate, BLOCK, _load, add_signed_by_16, zero_f32x16)


@unpack_rows
def iq2_xs_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_pairs(w, rows, columns, q, scale, minimum, BLOCK, 16, _load, store_by_16)


@unpack_tile
def iq2_xs_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    tile_pairs(
        w, row_bytes, columns, tile, scales, minima, scratch, BLOCK, 16, _load, store_by_16, turn_by_16
    )  # fmt: skip


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=16,
    dequantize=dequantize,
    dot_rows=iq2_xs_dot_rows,
    unpack_rows=iq2_xs_unpack_rows,
    unpack_tile=iq2_xs_unpack_tile,
    by_tiles=True,
)
