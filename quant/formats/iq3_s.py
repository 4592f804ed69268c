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

from quant.blocks.fields import bits_as_bytes, nibbles
from quant.blocks.grid_rows import dot_singles, store_by_32, tile_singles, turn_by_32, unpack_singles
from quant.blocks.grids import grid, points
from quant.blocks.signs import (
    dot_by_32,
    load_signs,
    plus_minus,
)
from quant.formats import Format, blocks_of, dot_rows, halves, rows_of, unpack_rows, unpack_tile
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
)

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
def _load(w):
    parts = _values(_find(load_i8x64(w + 2), bits_as_bytes(load_i64(w + 66))))
    return parts, load_signs(w + 74), _load_scales(w)


@dot_rows
def iq3_s_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_singles(w, rows, columns, x, y, alpha, accumulate, 110, _load, dot_by_32)


@unpack_rows
def iq3_s_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_singles(w, rows, columns, q, scale, minimum, 110, 8, _load, store_by_32)


@unpack_tile
def iq3_s_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    tile_singles(
        w, row_bytes, columns, tile, scales, minima, scratch, 110, 8, _load, store_by_32, turn_by_32
    )  # fmt: skip


FORMAT = Format("IQ3_S", 256, 110, "q8", 32, dequantize, iq3_s_dot_rows, iq3_s_unpack_rows, iq3_s_unpack_tile)
