"""IQ4_XS: 256 columns in 136 bytes, eight sub-blocks of 32; their values are spaced as in IQ4_NL.

0  float16 d
2  6-bit scale[8]: bits 4 and 5 in a uint16, lowest first, then bits 0 to 3 as nibbles of 4 bytes, low ones first
8  uint4 q[256]      16 bytes a sub-block: byte i holds column i (low) and column i + 16 (high)
   value = d * (scale - 32) * VALUES[q]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks256 import dot_each_by_32, fields8
from quant.blocks.group_sums import sums_by_group
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.formats.iq4_nl import HIGH, LOW, VALUES
from quant.int8_dot import BIAS, dot_wide
from quant.jit import inline
from quant.simd import (  # fmt: skip
    bit_and,
    bit_or,
    concat,
    load_f16,
    load_i8x16,
    load_i8x64,
    load_u32,
    low_f16,
    mul,
    permute,
    shift_right,
    splat,
    splat8,
    store_f32x8,
    store_f32x16,
    store_i8x32,
    store_i8x64,
    sub,
    to_f32,
    zero_i32x16,
)
from quant.tile import turn4, turn4_words

BLOCK = Block("IQ4_XS", number=23, columns=256, d=Scale("f16", 1 / 2048), scales_h=2, scales_l=4, qs=128)

_BIAS, _SCALE_OFFSET = np.float32(BIAS), np.float32(32)
_sums = sums_by_group(((0, 1, 2, 3), (4, 5, 6, 7)), bits=0)
_FIRST, _SECOND = (permute([32 * part + i + at for part in range(4) for i in range(16)]) for at in (0, 16))
_nibbles, _twos = fields8(4), fields8(2)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, scales_h, scales_l, qs = BLOCK.split(data)
    packed = qs.reshape(*qs.shape[:2], 8, 16)
    values = np.array(VALUES, np.float32)[np.concatenate([packed & 15, packed >> 4], axis=-1)]
    return rows_of((d * unpack_scales(scales_h, scales_l))[..., None] * values)


def unpack_scales(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Their upper two bits, uint8 [..., 2], and lower four, uint8 [..., 4] -> scales [..., 8] in [-32, 31]."""
    places = np.arange(8)
    low = lower[..., places // 2] >> (4 * (places % 2)).astype(np.uint8) & 15
    high = upper[..., places // 4] >> (2 * (places % 4)).astype(np.uint8) & 3
    return (low | high << 4).astype(np.int8) - np.int8(32)


@inline
def _load_scales(w):
    """d * (scale - 32) of a block's eight sub-blocks, and BIAS times that, each f32x8."""
    low, high = bit_and(_nibbles(load_u32(w + BLOCK.scales_l)), 15), bit_and(_twos(load_u32(w + BLOCK.d) >> 12), 48)
    scales = mul(sub(to_f32(bit_or(low, high)), splat8(_SCALE_OFFSET)), splat8(load_f16(w + BLOCK.d)))
    return scales, mul(scales, splat8(_BIAS))


@inline
def _parts_of(x):
    first, second = concat(load_i8x64(x), load_i8x64(x + 64)), concat(load_i8x64(x + 128), load_i8x64(x + 192))
    return _FIRST(first), _SECOND(first), _FIRST(second), _SECOND(second)


@inline
def _half(packed, x0, x1):
    """Four sub-blocks, in four lanes each: their products with the activation."""
    return dot_wide(dot_wide(zero_i32x16(), LOW(packed), x0), HIGH(packed), x1)


@inline
def _sums_of(w, x):
    return _sums(_half(load_i8x64(w + BLOCK.qs), x[0], x[1]), _half(load_i8x64(w + BLOCK.qs + 64), x[2], x[3]))


@dot_rows
def iq4_xs_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_each_by_32(w, rows, columns, x, y, alpha, accumulate, BLOCK, _parts_of, _sums_of, _load_scales)


@unpack_rows
def iq4_xs_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales, minima = _load_scales(w)
        store_f32x8(scale + 32 * b, scales)
        store_f32x8(minimum + 32 * b, minima)
        for part in range(8):
            packed = load_i8x16(w + BLOCK.qs + 16 * part)
            store_i8x32(q + 256 * b + 32 * part, concat(LOW(packed), HIGH(packed)))
        w += BLOCK.bytes


@inline
def _tile_scales(w, row_bytes, scales, minima):
    """d * (scale - 32) of one block of 16 rows, and BIAS times that, float32 [8 sub-blocks, 16 rows] each."""
    both, low, _, _ = turn4_words(w, row_bytes)
    d, high = low_f16(both), shift_right(both, 12)
    for j in range(8):
        scale = sub(to_f32(bit_or(bit_and(low, 15), bit_and(high, 48))), splat(_SCALE_OFFSET))
        store_f32x16(scales + 64 * j, mul(d, scale))
        store_f32x16(minima + 64 * j, mul(mul(d, scale), splat(_BIAS)))
        low, high = shift_right(low, 4), shift_right(high, 2)


@inline
def _store_step(packed, place):
    """Four columns of 16 rows, and those 16 columns on."""
    store_i8x64(place, LOW(packed))
    store_i8x64(place + 256, HIGH(packed))


@unpack_tile
def iq4_xs_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats; sub-blocks are turned packed."""
    for b in range(columns // 256):
        _tile_scales(w, row_bytes, scales + 512 * b, minima + 512 * b)
        for part in range(8):
            place = tile + 4096 * b + 512 * part
            s0, s1, s2, s3 = turn4(w + BLOCK.qs + 16 * part, row_bytes)
            _store_step(s0, place)
            _store_step(s1, place + 64)
            _store_step(s2, place + 128)
            _store_step(s3, place + 192)
        w += BLOCK.bytes


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=iq4_xs_dot_rows,
    by_tiles=True,
    unpack_rows=iq4_xs_unpack_rows,
    unpack_tile=iq4_xs_unpack_tile,
)
