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

from quant.block import Block, Scale, rows_of
from quant.blocks.fields import bits_as_bytes, nibbles
from quant.blocks.grid_rows import add_signed_by_32, dot_singles, store_by_32, tile_singles, turn_by_32, unpack_singles
from quant.blocks.grids import grid, points
from quant.blocks.signs import (
    load_signs,
    plus_minus,
)
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (
    fma,
    load_f16,
    load_i8x64,
    load_i64,
    load_u32,
    permute,
    splat8,
    u32x2_to_f32x8,
    zero_f32x8,
)

BLOCK = Block("IQ3_S", number=21, columns=256, d=Scale("f16", 1 / 128), qs=64, qh=8, signs=32, scales=4)

_find, _values = grid("IQ3_S", 512, 4, range(1, 16, 2))
_IN_ORDER = permute([0, 4, 1, 5, 2, 6, 3, 7])


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, qs, qh, signs, scales = BLOCK.split(data)
    high = np.unpackbits(qh, axis=-1, bitorder="little").astype(np.uint16)
    values = points("IQ3_S")[qs | high << 8].reshape(*qs.shape[:2], 8, 32)
    steps = d * (1 + 2 * nibbles(scales))
    return rows_of(steps[..., None] * values * plus_minus(signs).reshape(values.shape))


@inline
def _load_scales(w):
    packed, d = load_u32(w + BLOCK.scales), load_f16(w + BLOCK.d)
    scales = _IN_ORDER(u32x2_to_f32x8(packed & 0x0F0F0F0F, packed >> 4 & 0x0F0F0F0F))
    return fma(scales, splat8(d + d), splat8(d))


@inline
def _load(w):
    parts = _values(_find(load_i8x64(w + BLOCK.qs), bits_as_bytes(load_i64(w + BLOCK.qh))))
    return parts, load_signs(w + BLOCK.signs), _load_scales(w)


@dot_rows
def iq3_s_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_singles(w, rows, columns, x, y, alpha, accumulate, BLOCK, _load, add_signed_by_32, zero_f32x8)


@unpack_rows
def iq3_s_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_singles(w, rows, columns, q, scale, minimum, BLOCK, 8, _load, store_by_32)


@unpack_tile
def iq3_s_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    tile_singles(
        w, row_bytes, columns, tile, scales, minima, scratch, BLOCK, 8, _load, store_by_32, turn_by_32
    )  # fmt: skip


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=iq3_s_dot_rows,
    unpack_rows=iq3_s_unpack_rows,
    unpack_tile=iq3_s_unpack_tile,
    by_tiles=True,
)
