"""TQ1_0: 256 columns in 54 bytes, weights of three values, five to a byte (see quant.blocks.trits).

 0  digits q[240]     byte i < 32: columns i, i + 32, … i + 128; byte 32 + i, i < 16: columns 160 + i, i + 16, … i + 64
48  digits q[16]      byte i < 4: columns 240 + i, + 4, + 8 and + 12, and nothing
52  float16 d         value = d * (q - 1)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks256 import dot_fours_by_32
from quant.blocks.group_sums import sums_by_group
from quant.blocks.trits import SHIFT, SUB_BLOCKS, by_sub_block, digits_of, five_words, four_words, trits
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.formats.tq2_0 import fill_tile_scales
from quant.int8_dot import dot_u7
from quant.jit import inline
from quant.simd import (  # fmt: skip
    concat,
    load_f16,
    load_i8x32,
    permute,
    shift_right,
    splat8,
    store_f32x8,
    store_i8x32,
    store_i8x64,
    zero_i32x16,
)
from quant.tile import turn4

BLOCK = Block("TQ1_0", number=34, columns=256, qs=48, qh=4, d=Scale("f16", 1))

_sums = sums_by_group(SUB_BLOCKS, bits=2)
_DIGITS = np.array([digits_of(byte) for byte in range(256)], np.int8)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    qs, qh, d = BLOCK.split(data)
    digits = _DIGITS[qs]  # [rows, n, 48, 5]
    parts = [digits[..., :32, :], digits[..., 32:, :], _DIGITS[qh][..., :4]]
    q = np.concatenate([part.swapaxes(-1, -2).reshape(*part.shape[:2], -1) for part in parts], axis=-1)
    return rows_of(d * (q - np.int8(1)))


@inline
def load_digits(w):
    """Bytes 0 to 31, then 20 to 51, and their digits."""
    return trits(concat(load_i8x32(w), load_i8x32(w + 20)))


@inline
def _columns(x, digit):
    """The columns of one of the first four digits of `load_digits`; 0 for bytes 20 to 31, which are there twice."""
    last = five_words(load_i8x32(x + 148 + 16 * digit), load_i8x32(x + 212 + 4 * digit))
    return concat(load_i8x32(x + 32 * digit), last)


@inline
def _parts_of(x):
    last = concat(load_i8x32(x + 128), four_words(load_i8x32(x + 212)))
    return _columns(x, 0), _columns(x, 1), _columns(x, 2), _columns(x, 3), last


@inline
def _load_scales(w):
    """d of a block for each of its eight sub-blocks, as scale and as minimum, f32x8 each."""
    d = splat8(load_f16(w + BLOCK.d))
    return d, d


@inline
def _sums_of(w, x):
    q, zero = _plain(load_digits(w)), zero_i32x16()
    first, second, third = dot_u7(zero, q[0], x[0]), dot_u7(zero, q[1], x[1]), dot_u7(zero, q[2], x[2])
    a, b, c, d = by_sub_block(first, second, third, dot_u7(zero, q[3], x[3]), dot_u7(zero, q[4], x[4]))
    return _sums(a, b, c, d)


@dot_rows
def tq1_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_fours_by_32(w, rows, columns, x, y, alpha, accumulate, BLOCK, _parts_of, _sums_of, _load_scales)


# The numbers of a digit's columns in `load_digits`: 32, then 16, then 4.
_FIRST, _MIDDLE, _LAST = permute(range(32)), permute(range(44, 60)), permute(range(60, 64))


@inline
def _plain(q):
    return q[0], shift_right(q[1], SHIFT), q[2], shift_right(q[3], SHIFT), q[4]


@unpack_rows
def tq1_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 256):
        scales, minima = _load_scales(w)
        store_f32x8(scale + 32 * b, scales)
        store_f32x8(minimum + 32 * b, minima)
        q0, q1, q2, q3, q4 = _plain(load_digits(w))
        last = concat(concat(_LAST(q0), _LAST(q1)), concat(_LAST(q2), _LAST(q3)))
        store_i8x64(q + 256 * b, concat(_FIRST(q0), _FIRST(q1)))
        store_i8x64(q + 256 * b + 64, concat(_FIRST(q2), _FIRST(q3)))
        store_i8x32(q + 256 * b + 128, _FIRST(q4))
        store_i8x32(q + 256 * b + 160, concat(_MIDDLE(q0), _MIDDLE(q1)))
        store_i8x32(q + 256 * b + 192, concat(_MIDDLE(q2), _MIDDLE(q3)))
        store_i8x32(q + 256 * b + 224, concat(_MIDDLE(q4), last))
        w += BLOCK.bytes


@inline
def _store_step(packed, place, distance):
    """Four digits of four bytes to their places in a tile, and the fifth, which may have none."""
    q0, q1, q2, q3, q4 = _plain(trits(packed))
    store_i8x64(place, q0)
    store_i8x64(place + distance, q1)
    store_i8x64(place + 2 * distance, q2)
    store_i8x64(place + 3 * distance, q3)
    return q4


@inline
def _store_steps(w, row_bytes, place, distance):
    """16 bytes of 16 rows."""
    s0, s1, s2, s3 = turn4(w, row_bytes)
    store_i8x64(place + 4 * distance, _store_step(s0, place, distance))
    store_i8x64(place + 4 * distance + 64, _store_step(s1, place + 64, distance))
    store_i8x64(place + 4 * distance + 128, _store_step(s2, place + 128, distance))
    store_i8x64(place + 4 * distance + 192, _store_step(s3, place + 192, distance))


@unpack_tile
def tq1_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats; bytes are turned packed."""
    for b in range(columns // 256):
        fill_tile_scales(w + BLOCK.d, row_bytes, scales + 512 * b, minima + 512 * b)
        _store_steps(w, row_bytes, tile, 512)
        _store_steps(w + 16, row_bytes, tile + 256, 512)
        _store_steps(w + 32, row_bytes, tile + 2560, 256)
        _, _, _, last = turn4(w + 36, row_bytes)
        _store_step(last, tile + 3840, 64)
        w += BLOCK.bytes
        tile += 4096


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=tq1_0_dot_rows,
    by_tiles=True,
    unpack_rows=tq1_0_unpack_rows,
    unpack_tile=tq1_0_unpack_tile,
    bits=4,
)
