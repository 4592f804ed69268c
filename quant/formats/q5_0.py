"""Q5_0: 32 columns in 22 bytes.

0  float16 d
2  uint32 h          bit i of h is bit 4 of column i
6  uint4 q[32]       byte i holds column i (low) and column i + 16 (high);  value = d * ((q | h << 4) - 16)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from quant.block import Block, Scale, rows_of
from quant.blocks.blocks32 import dot_blocks, fields, fields16, halves8, packed4, unpack_blocks
from quant.declarations import Intrinsic
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.formats.q4_1 import dot, split_nibbles
from quant.jit import inline, intrinsic
from quant.simd import (
    I8,
    I16,
    I32,
    bit_or,
    concat,
    constant_of,
    i8x32,
    i8x64,
    i32x16,
    load_f16,
    load_i8x16,
    load_u32,
    mul,
    shift_right,
    shuffle,
    splat,
    splat8,
    store_f32x16,
    store_i8x64,
    vector_of,
)
from quant.tile import gather_f16, turn4

BLOCK = Block("Q5_0", number=6, columns=32, d=Scale("f16", 1 / 16), qh=4, qs=16)

_OFFSET = np.float32(16)


def fifth_bits(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [rows, n, 4] -> [rows, n, 32], 16 where a bit is set."""
    return np.unpackbits(packed, axis=-1, bitorder="little") * np.uint8(16)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, qh, qs = BLOCK.split(data)
    nibbles = np.concatenate([qs & 15, qs >> 4], axis=-1)
    return rows_of(d * ((nibbles | fifth_bits(qh)).astype(np.int8) - np.int8(16)))


def _spread(builder: Any, packed: Any, lanes: int, run: int, skip: int) -> Any:
    """16 in each lane whose bit is set; bits lowest first, `run` of them from every `skip` bytes of a vector."""
    raw = builder.bitcast(packed, vector_of(I8, packed.type.count * packed.type.element.width // 8))
    places = [lane // run * skip + lane % run // 8 for lane in range(lanes)]
    kind = vector_of(I8, lanes)
    own_bit = ir.Constant(kind, [1 << lane % run % 8 for lane in range(lanes)])
    bits = builder.and_(shuffle(builder, raw, raw, places), own_bit)
    is_set = builder.icmp_unsigned("!=", bits, constant_of(kind, 0))
    return builder.select(is_set, constant_of(kind, 16), constant_of(kind, 0))


def fifths4(size: int, at: int) -> Intrinsic:
    """Declare an intrinsic: bit 4 of 16 columns of each of four blocks, whose bits begin `at` bytes into them: i8x64."""
    return fields(i8x64, I16, size, at, lambda builder, words: _spread(builder, words, 64, 16, 2))


@intrinsic
def fifths1(bits: Any) -> Any:
    """Bit 4 of the 32 columns of a block, given as an integer: i8x32."""

    def generate(builder: Any, bits: Any) -> Any:
        word = builder.bitcast(builder.trunc(bits, I32), vector_of(I32, 1))
        return _spread(builder, word, 32, 32, 4)

    return i8x32, generate


@intrinsic
def _fifths16(words: Any) -> Any:
    """Bit 4 of the next four columns of 16 rows, the lowest bits of i32x16: i8x64."""
    return i8x64, lambda builder, words: _spread(builder, words, 64, 4, 4)


_words16 = fields16(i32x16, I32, lambda builder, words: words)
_d8 = halves8(BLOCK.bytes, BLOCK.d)
_low4, _high4 = fifths4(BLOCK.bytes, BLOCK.qh), fifths4(BLOCK.bytes, BLOCK.qh + 2)


@inline
def _scales8(w):
    d = _d8(w)
    return d, mul(d, splat8(_OFFSET))


@inline
def _scales1(w):
    d = load_f16(w + BLOCK.d)
    return d, _OFFSET * d


@inline
def _scales16(w, row_bytes):
    d = gather_f16(w + BLOCK.d, row_bytes)
    return d, mul(d, splat(_OFFSET))


@inline
def _load4(w):
    low, high = split_nibbles(packed4(w + BLOCK.qs, BLOCK.bytes))
    return bit_or(low, _low4(w)), bit_or(high, _high4(w))


@inline
def _load1(w):
    return load1_of_five_bits(w + BLOCK.qh)


@inline
def load1_of_five_bits(w):
    """q of one block, from its fifth bits on."""
    low, high = split_nibbles(load_i8x16(w + 4))
    return bit_or(concat(low, high), fifths1(load_u32(w)))


@inline
def _store_step(packed, words, place):
    """Four columns of 16 rows, and those 16 columns on; gives the bits of the next."""
    low, high = split_nibbles(packed)
    store_i8x64(place, bit_or(low, _fifths16(words)))
    store_i8x64(place + 256, bit_or(high, _fifths16(shift_right(words, 16))))
    return shift_right(words, 4)


@inline
def unpack_fives(w, row_bytes, columns, tile, scales, minima, block, scales16):
    """unpack_tile of quant.formats, for types with fifth bits, qh, before the nibbles."""
    for b in range(columns // 32):
        d, m = scales16(w, row_bytes)
        store_f32x16(scales + 64 * b, d)
        store_f32x16(minima + 64 * b, m)
        s0, s1, s2, s3 = turn4(w + block.qs, row_bytes)
        words = _store_step(s0, _words16(w + block.qh, row_bytes), tile + 512 * b)
        words = _store_step(s1, words, tile + 512 * b + 64)
        words = _store_step(s2, words, tile + 512 * b + 128)
        _store_step(s3, words, tile + 512 * b + 192)
        w += block.bytes


@dot_rows
def q5_0_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    dot_blocks(w, rows, columns, x, y, alpha, accumulate, BLOCK, _scales8, _scales1, _load4, _load1, dot)


@unpack_rows
def q5_0_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    unpack_blocks(w, rows, columns, q, scale, minimum, BLOCK, _scales1, _load1)


@unpack_tile
def q5_0_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    unpack_fives(w, row_bytes, columns, tile, scales, minima, BLOCK, _scales16)


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=32,
    dequantize=dequantize,
    dot_rows=q5_0_dot_rows,
    by_tiles=True,
    unpack_rows=q5_0_unpack_rows,
    unpack_tile=q5_0_unpack_tile,
    bits=5,
)
