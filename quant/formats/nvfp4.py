"""NVFP4: 64 columns in 36 bytes, four sub-blocks of 16: 4-bit floats (E2M1) by an 8-bit one (UE4M3).

0  uint8 s[4]        4 bits of exponent, 3 of mantissa; halved, because VALUES are doubled; 0x7F is 0
4  uint4 q[64]       8 bytes hold a sub-block: byte i its column i (low) and i + 8 (high);  value = s * VALUES[q]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from quant.activation import scales_of, sums16_of
from quant.block import Block, Scale, rows_of
from quant.blocks.blocks32 import fields16
from quant.blocks.rows import emit
from quant.declarations import vector_llvm
from quant.formats import Format, dot_rows, unpack_rows, unpack_tile
from quant.formats.mxfp4 import OFFSET, VALUES, split_nibbles
from quant.int8_dot import dot_u7, join
from quant.jit import inline, intrinsic
from quant.simd import (
    F16,
    F32,
    I8,
    I16,
    I32,
    add,
    concat,
    constant_of,
    f32x16,
    fma,
    i8x64,
    i32x16,
    load_f32,
    load_f32x8,
    load_f32x16,
    load_i8x32,
    load_i8x64,
    mul,
    permute,
    pointer,
    prefetch,
    shift_right,
    shuffle,
    splat,
    splat8,
    store_f32,
    store_f32x16,
    store_i8x64,
    sub,
    sum_lanes,
    to_f32,
    vector_of,
    zero_f32x16,
    zero_i32x16,
)
from quant.tile import turn4

BLOCK = Block("NVFP4", number=40, columns=64, d=Scale("ue4m3", 1 / 8, count=4), qs=32)

_AHEAD = 192 * BLOCK.bytes  # prefetch distance
_TWICE = permute([i // 2 for i in range(16)])
_LANES_LOW, _LANES_HIGH = (permute([first + i // 2 for i in range(16)]) for first in (0, 8))
# Columns of two blocks whose q are low nibbles, and high ones; and all q of a block, low nibbles then high ones, in order.
_EVEN, _ODD = (permute([16 * sub_block + first + i for sub_block in range(8) for i in range(8)]) for first in (0, 8))
_IN_ORDER = permute([32 * half + 8 * sub_block + i for sub_block in range(4) for half in range(2) for i in range(8)])


def decoded(scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """UE4M3, halved -> float32, by way of float16, which has a bit of exponent more."""
    bits = np.where(scales == 0x7F, 0, scales & 0x7F).astype(np.uint16) << 7
    return bits.view(np.float16).astype(np.float32) * np.float32(128)


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, row bytes] -> float32 [rows, columns]."""
    d, qs = BLOCK.split(data)
    packed = qs.reshape(*qs.shape[:2], 4, 8)
    nibbles = np.concatenate([packed & 15, packed >> 4], axis=-1)
    return rows_of(decoded(d)[..., None] * np.array(VALUES, np.float32)[nibbles])


def _decoded(builder: Any, codes: Any) -> Any:
    """i8 lanes -> float32 lanes."""
    count, kind = codes.type.count, codes.type
    none = builder.icmp_unsigned("==", codes, constant_of(kind, 0x7F))
    codes = builder.and_(builder.select(none, constant_of(kind, 0), codes), constant_of(kind, 0x7F))
    bits = builder.shl(builder.zext(codes, vector_of(I16, count)), constant_of(vector_of(I16, count), 7))
    wide = builder.fpext(builder.bitcast(bits, vector_of(F16, count)), vector_of(F32, count))
    return builder.fmul(wide, constant_of(wide.type, 128.0))


def _codes(builder: Any, w: Any, count: int) -> Any:
    return builder.load(pointer(builder, w, vector_of(I8, count)), align=1)


@intrinsic
def _scales16(w: Any) -> Any:
    """The scales of four blocks, f32x16."""

    def generate(builder: Any, w: Any) -> Any:
        blocks = [
            _codes(builder, builder.add(w, ir.Constant(w.type, BLOCK.bytes * block + BLOCK.d)), 4) for block in range(4)
        ]
        return _decoded(builder, join(builder, blocks))

    return f32x16, generate


@intrinsic
def _scales4(w: Any) -> Any:
    """The scales of a block, four lanes each."""

    def generate(builder: Any, w: Any) -> Any:
        scales = _decoded(builder, _codes(builder, w, 4))
        return shuffle(builder, scales, scales, [lane // 4 for lane in range(16)])

    return f32x16, generate


@intrinsic
def _scale(w: Any) -> Any:
    return "f32", lambda builder, w: builder.extract_element(_decoded(builder, _codes(builder, w, 1)), I32(0))


@intrinsic
def _lowest_scales(words: Any) -> Any:
    """The scale in the low byte of each i32 lane."""
    return f32x16, lambda builder, words: _decoded(builder, builder.trunc(words, vector_of(I8, 16)))


_words16 = fields16(i32x16, I32, lambda builder, words: words)
_offsets = intrinsic(lambda: (i8x64, lambda _builder: constant_of(vector_llvm(i8x64), int(OFFSET))))


@inline
def _two(w, x):
    """Products of two blocks, two lanes a sub-block."""
    low, high = split_nibbles(concat(load_i8x32(w + BLOCK.qs), load_i8x32(w + BLOCK.bytes + BLOCK.qs)))
    columns = concat(load_i8x64(x), load_i8x64(x + 64))
    return to_f32(dot_u7(dot_u7(zero_i32x16(), low, _EVEN(columns)), high, _ODD(columns)))


@inline
def _load1(w):
    """q of a block, in order."""
    low, high = split_nibbles(load_i8x32(w + BLOCK.qs))
    return _IN_ORDER(concat(low, high))


@inline
def _last(w, x, d_x, total):
    """A block on its own."""
    columns = load_i8x64(x)
    products = sub(dot_u7(zero_i32x16(), _load1(w), columns), dot_u7(zero_i32x16(), _offsets(), columns))
    d = concat(splat8(load_f32(d_x)), splat8(load_f32(d_x + 4)))
    return fma(to_f32(products), mul(_scales4(w + BLOCK.d), d), total)


@dot_rows
def nvfp4_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats; four blocks at a time."""
    d_x, s_x = scales_of(x, columns), sums16_of(x, columns)
    whole = columns // 256 * 4
    for r in range(rows):
        even, odd, low = zero_f32x16(), zero_f32x16(), zero_f32x16()
        for b in range(0, whole, 4):
            for line in range(0, 4 * BLOCK.bytes, 64):
                prefetch(w + _AHEAD + line)
            scales = _scales16(w)
            low = fma(scales, load_f32x16(s_x + 16 * b), low)
            scales = mul(scales, _TWICE(load_f32x8(d_x + 8 * b)))
            even = fma(_two(w, x + 64 * b), _LANES_LOW(scales), even)
            odd = fma(_two(w + 2 * BLOCK.bytes, x + 64 * b + 128), _LANES_HIGH(scales), odd)
            w += 4 * BLOCK.bytes
        for b in range(whole, columns // 64):
            even = _last(w, x + 64 * b, d_x + 8 * b, even)
            w += BLOCK.bytes
        emit(y + 4 * r, sum_lanes(sub(add(even, odd), mul(low, splat(OFFSET)))), alpha, accumulate)


@unpack_rows
def nvfp4_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for b in range(rows * columns // 64):
        store_i8x64(q + 64 * b, _load1(w))
        for j in range(4):
            d = _scale(w + BLOCK.d + j)
            store_f32(scale + 16 * b + 4 * j, d)
            store_f32(minimum + 16 * b + 4 * j, OFFSET * d)
        w += BLOCK.bytes


@inline
def _store_step(packed, place):
    """Four columns of 16 rows, and those 8 columns on."""
    low, high = split_nibbles(packed)
    store_i8x64(place, low)
    store_i8x64(place + 128, high)


@unpack_tile
def nvfp4_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for b in range(columns // 64):
        words = _words16(w + BLOCK.d, row_bytes)
        for j in range(4 * b, 4 * b + 4):
            d = _lowest_scales(words)
            store_f32x16(scales + 64 * j, d)
            store_f32x16(minima + 64 * j, mul(d, splat(OFFSET)))
            words = shift_right(words, 8)
        for pair in range(2):
            place = tile + 1024 * b + 512 * pair
            s0, s1, s2, s3 = turn4(w + BLOCK.qs + 16 * pair, row_bytes)
            _store_step(s0, place)
            _store_step(s1, place + 64)
            _store_step(s2, place + 256)
            _store_step(s3, place + 320)
        w += BLOCK.bytes


FORMAT = Format(
    block=BLOCK,
    activation="q8",
    group=16,
    dequantize=dequantize,
    dot_rows=nvfp4_dot_rows,
    unpack_rows=nvfp4_unpack_rows,
    unpack_tile=nvfp4_unpack_tile,
)
