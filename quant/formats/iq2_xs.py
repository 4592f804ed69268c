"""IQ2_XS: 256 columns in 74 bytes; eight columns are a point of a grid of 512, each with a sign.

 0  float16 d
 2  uint16 word[32]    of 8 columns: the index of a point in the lowest 9 bits, then 7 signs (the eighth makes the number
                       of minus signs even)
66  uint4 scale[16]    of 16 columns, low nibbles first;  value = d * (1/2 + scale) / 4 * point, or less that
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import scales_of
from quant.blocks.fields import even_bytes, load_nibbles, nibbles, odd_bytes
from quant.blocks.grids import grid, points
from quant.blocks.signs import (
    OFFSET,
    dot_by_16,
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
    splat,
    store_f32x16,
    sum_lanes,
    zero_f32x16,
)
from quant.tile import transpose16

_AHEAD = 2072  # bytes: prefetch distance, 28 blocks
_find, _values = grid("IQ2_XS", 512, 8, (8, 25, 43))
_HALF, _QUARTER, _EIGHTH = np.float32(1 / 2), np.float32(1 / 4), np.float32(1 / 8)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    blocks = blocks_of(data, 74)
    words = np.ascontiguousarray(blocks[..., 2:66]).view(np.uint16)
    values = points("IQ2_XS")[words & 511].reshape(*blocks.shape[:2], 16, 2, 8)
    signs = plus_minus(with_parity((words >> 9).astype(np.uint8))).reshape(values.shape)
    scales = halves(blocks[..., :2]) * (_HALF + nibbles(blocks[..., 66:])) * _QUARTER
    return rows_of(scales[..., None, None] * values * signs)


@inline
def _load_parts(w, second):
    """Eight parts and their signs: of this block, and of a second one."""
    a, b = load_i8x64(w + 2), load_i8x64(second + 2)
    high = odd_bytes(a, b)
    return _values(_find(even_bytes(a, b), high)), parity_signs(shift_right(high, 1))


@inline
def _load_scales(w):
    d = load_f16(w)
    return fma(load_nibbles(w + 66), splat(d * _QUARTER), splat(d * _EIGHTH))


@dot_rows
def iq2_xs_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; points of two blocks are looked up together."""
    d_x, blocks = scales_of(x, columns), columns // 256
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        for b in range(0, blocks, 2):
            prefetch(w + _AHEAD)
            prefetch(w + _AHEAD + 64)
            prefetch(w + _AHEAD + 128)
            second = w + 74 if b + 1 < blocks else w
            (parts, signs), at, d = _load_parts(w, second), x + 256 * b, d_x + 32 * b
            even, odd = dot_by_16(parts[:4], signs[:4], _load_scales(w), at, d, even, odd)
            if b + 1 < blocks:
                even, odd = dot_by_16(parts[4:], signs[4:], _load_scales(second), at + 256, d + 32, even, odd)
            w = second + 74
        emit(y + 4 * r, sum_lanes(add(even, odd)), alpha, accumulate)


@inline
def _unpack(w, parts, signs, q, step, scale):
    """One block: its four parts, `step` bytes apart; gives its scales."""
    scales = _load_scales(w)
    store_f32x16(scale, scales)
    store_parts(offset(parts, signs), q, step)
    return scales


@unpack_rows
def iq2_xs_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        parts, signs = _load_parts(w, w)
        scales = _unpack(w, parts[:4], signs[:4], q + 256 * b, 64, scale + 64 * b)
        store_f32x16(minimum + 64 * b, mul(scales, splat(OFFSET)))
        w += 74


@unpack_tile
def iq2_xs_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for _ in range(columns // 256):
        for r in range(0, 16, 2):
            first, second = w + r * row_bytes, w + (r + 1) * row_bytes
            parts, signs = _load_parts(first, second)
            _unpack(first, parts[:4], signs[:4], tile + 64 * r, 1024, scratch + 64 * r)
            _unpack(second, parts[4:], signs[4:], tile + 64 * r + 64, 1024, scratch + 64 * r + 64)
        interleave(tile)
        transpose16(scratch, 64, scales, 64)
        tile_minima(scales, 16, minima)
        w, tile, scales, minima = w + 74, tile + 4096, scales + 1024, minima + 1024


FORMAT = Format("IQ2_XS", 256, 74, "q8", 16, dequantize, iq2_xs_dot_rows, iq2_xs_unpack_rows, iq2_xs_unpack_tile)
