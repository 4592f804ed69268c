"""Q4_K: 256 columns in 144 bytes, eight sub-blocks of 32.

 0  float16 d, float16 dmin
 4  6-bit scale[8] and minimum[8], packed in 12 bytes u[0..11]: for j < 4 scale[j] = u[j] & 63, minimum[j] = u[j+4] & 63,
    scale[j+4] = (u[j+8] & 15) | (u[j] >> 6) << 4, minimum[j+4] = (u[j+8] >> 4) | (u[j+4] >> 6) << 4
16  uint4 q[256]      32 bytes hold sub-block 2i (low nibbles) and 2i + 1 (high nibbles)
    value = d * scale * q - dmin * minimum
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks256 import dot_each_by_32
from quant.blocks.group_sums import sums_by_group, sums_of_products
from quant.blocks.sixteens import scales_and_minima
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import (  # fmt: skip
    bit_and,
    bit_or,
    concat,
    high_f16,
    load_i8x32,
    load_i8x64,
    low_f16,
    mul,
    permute,
    shift_right,
    store_f32x8,
    store_f32x16,
    store_i8x32,
    to_f32,
)
from quant.tile import store_nibbles, turn4, turn4_words

BLOCK = Block(
    "Q4_K", number=12, columns=256, d=Scale("f16", 3 / 32 / 15), dmin=Scale("f16", 1.5 / 32), scales=12, qs=128
)

SUB_BLOCKS = ((0, 0, 2, 2), (1, 1, 3, 3), (4, 4, 6, 6), (5, 5, 7, 7))  # of `parts_of`, by four lanes of a product
_sums = sums_by_group(SUB_BLOCKS, bits=4)
_LOWER, _UPPER = permute(range(8)), permute(range(8, 16))


def unpack_scales(packed: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """uint8 [..., 12] -> 6-bit scales [..., 8] and minima [..., 8]."""
    low, middle, high = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6) << 4], axis=-1)
    return scales, np.concatenate([middle & 63, (high >> 4) | (middle >> 6) << 4], axis=-1)


def affine(
    d: NDArray[np.float32], dmin: NDArray[np.float32], packed: NDArray[np.uint8], q: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """d and dmin [rows, n, 1], packed scales and minima [rows, n, 12], q [rows, n, 8, 32] -> float32 [rows, columns]."""
    scales, minima = unpack_scales(packed)
    return rows_of((d * scales)[..., None] * q - (dmin * minima)[..., None])


def nibbles(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [rows, n, 128] -> uint4 [rows, n, 8, 32]."""
    pairs = packed.reshape(*packed.shape[:2], 4, 1, 32)
    return np.concatenate([pairs & 15, pairs >> 4], axis=3).reshape(*packed.shape[:2], 8, 32)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, dmin, scales, qs = BLOCK.split(data)
    return affine(d, dmin, scales, nibbles(qs))


@inline
def load_scales(w):
    """d * scale and dmin * minimum of a block's eight sub-blocks, each f32x8."""
    both = scales_and_minima(w)
    return _LOWER(both), _UPPER(both)


@inline
def two_parts(address):
    """Columns 0..31 and 64..95 of an activation, as i8x64."""
    return concat(load_i8x32(address), load_i8x32(address + 64))


@inline
def parts_of(x):
    """See quant.blocks.blocks256: sub-blocks (0, 2), (1, 3), (4, 6) and (5, 7)."""
    return two_parts(x), two_parts(x + 32), two_parts(x + 128), two_parts(x + 160)


@inline
def _sums_of(w, x):
    first, second = load_i8x64(w + BLOCK.qs), load_i8x64(w + BLOCK.qs + 64)
    q0, q1, q2, q3 = bit_and(first, 15), shift_right(first, 4), bit_and(second, 15), shift_right(second, 4)
    return sums_of_products(_sums, (q0, q1, q2, q3), x)


@dot_rows
def q4_k_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_each_by_32(w, rows, columns, x, y, alpha, accumulate, BLOCK, parts_of, _sums_of, load_scales)


@unpack_rows
def q4_k_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales, minima = load_scales(w)
        store_f32x8(scale + 32 * b, scales)
        store_f32x8(minimum + 32 * b, minima)
        for pair in range(4):
            packed = load_i8x32(w + BLOCK.qs + 32 * pair)
            store_i8x32(q + 256 * b + 64 * pair, bit_and(packed, 15))
            store_i8x32(q + 256 * b + 64 * pair + 32, shift_right(packed, 4))
        w += BLOCK.bytes


@inline
def _store_scales(d, dmin, scale, minimum, j, scales, minima):
    store_f32x16(scales + 64 * j, mul(d, to_f32(scale)))
    store_f32x16(minima + 64 * j, mul(dmin, to_f32(minimum)))


@inline
def tile_scales(w, row_bytes, scales, minima):
    """d * scale and dmin * minimum of one block of 16 rows, float32 [8 sub-blocks, 16 rows] each."""
    both, u0, u1, u2 = turn4_words(w, row_bytes)
    d, dmin = low_f16(both), high_f16(both)
    for j in range(4):
        _store_scales(d, dmin, bit_and(u0, 63), bit_and(u1, 63), j, scales, minima)
        scale = bit_or(bit_and(u2, 15), bit_and(shift_right(u0, 2), 48))
        minimum = bit_or(bit_and(shift_right(u2, 4), 15), bit_and(shift_right(u1, 2), 48))
        _store_scales(d, dmin, scale, minimum, j + 4, scales, minima)
        u0, u1, u2 = shift_right(u0, 8), shift_right(u1, 8), shift_right(u2, 8)


@unpack_tile
def q4_k_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats; nibbles change places packed, two sub-blocks together."""
    for b in range(columns // 256):
        tile_scales(w, row_bytes, scales + 512 * b, minima + 512 * b)
        for part in range(8):
            place = tile + 4096 * b + 1024 * (part // 2) + 256 * (part % 2)
            s0, s1, s2, s3 = turn4(w + BLOCK.qs + 16 * part, row_bytes)
            store_nibbles(s0, place, place + 512)
            store_nibbles(s1, place + 64, place + 576)
            store_nibbles(s2, place + 128, place + 640)
            store_nibbles(s3, place + 192, place + 704)
        w += BLOCK.bytes


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=q4_k_dot_rows,
    by_tiles=True,
    unpack_rows=q4_k_unpack_rows,
    unpack_tile=q4_k_unpack_tile,
    bits=4,
)
