"""dot_rows, unpack_rows and unpack_tile of types with blocks of 32 columns: eight blocks at a time, four in a vector.

A block's 16 packed bytes hold column i in the low and column i + 16 in the high nibble of byte i. So columns 0..15 of
four blocks are multiplied with their activations in one vector, and then columns 16..31 of the same blocks.

A format tells what differs by helpers, where value = d * q - m and q is as `quant.int8_dot` wants it:

scales8(w)             d and m of eight blocks, f32x8 each; scales1(w): of one block, float32 each;
                       scales16(w, row_bytes): of a block in each of 16 rows, f32x16 each
load4(w)               q of columns 0..15 of four blocks, and of columns 16..31, i8x64 each; load1(w): of one block, i8x32
split_nibbles(packed)  q of the low nibbles, and of the high ones
dot(acc, q, x)         acc with the products of q and x added, for operands of every width
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from quant.activation import scales_of, sums32_of
from quant.blocks.lookup import VPERMB
from quant.blocks.rows import emit, emit_few, few_inputs, few_of
from quant.declarations import Intrinsic, Vector
from quant.int8_dot import UNIT
from quant.jit import inline, intrinsic
from quant.simd import (
    F16,
    F32,
    I8,
    I32,
    add,
    concat,
    f32x8,
    fma,
    i8x64,
    load_f32,
    load_f32x8,
    load_i8x16,
    load_i8x32,
    load_i8x64,
    mul,
    permute,
    pointer,
    prefetch,
    shuffle,
    splat8,
    store_f32,
    store_f32x16,
    store_i8x32,
    store_i8x64,
    sub,
    sum_lanes,
    to_f32,
    vector_of,
    zero_f32x8,
    zero_f32x16,
    zero_i32x8,
    zero_i32x16,
)
from quant.tile import turn4

Convert = Callable[[Any, Any], Any]  # (builder, LLVM vector) -> LLVM vector

_FIRST = permute([32 * block + i for block in range(4) for i in range(16)])
_SECOND = permute([32 * block + 16 + i for block in range(4) for i in range(16)])
_LANES_0_3, _LANES_4_7 = (permute([first + i // 4 for i in range(16)]) for first in (0, 4))
_LOWER, _UPPER = permute(range(8)), permute(range(8, 16))
_AHEAD = 6912  # bytes: prefetch distance (2304: 5 % slower from memory, as 2 threads of a Zen 5 read it)


@inline
def packed4(w, stride):
    """16 bytes at w, and at the same place of the next three blocks: i8x64."""
    first = concat(load_i8x16(w), load_i8x16(w + stride))
    return concat(first, concat(load_i8x16(w + 2 * stride), load_i8x16(w + 3 * stride)))


@inline
def _products(w, x, load4, dot):
    """The dot products of four blocks and their activations, f32x16: the sum of four lanes is a block's."""
    columns = concat(load_i8x64(x), load_i8x64(x + 64))
    first, second = load4(w)
    return to_f32(dot(dot(zero_i32x16(), first, _FIRST(columns)), second, _SECOND(columns)))


@inline
def _eight(w, x, columns, b, sums, block, scales8, load4, dot):
    """Blocks b to b + 8 of a row, at w: their products are added to sums, the even and odd halves and what is taken off."""
    even, odd, low = sums
    d, m = scales8(w)
    low = fma(m, load_f32x8(sums32_of(x, columns) + 4 * b), low)
    d = mul(d, load_f32x8(scales_of(x, columns) + 4 * b))
    even = fma(_products(w, x + 32 * b, load4, dot), _LANES_0_3(d), even)
    odd = fma(_products(w + 4 * block.bytes, x + 32 * b + 128, load4, dot), _LANES_4_7(d), odd)
    return even, odd, low


@inline
def _whole(w, x, columns, sums, block, scales1, load1, dot):
    """The product of a row, of which w is what is left behind the last eight blocks, and `sums` what those gave."""
    even, odd, low = sums
    last, offset = zero_f32x8(), np.float32(0)
    for b in range(columns // 256 * 8, columns // 32):
        scale, minimum = scales1(w)
        products = dot(zero_i32x8(), load1(w), load_i8x32(x + 32 * b))
        last = fma(to_f32(products), splat8(scale * load_f32(scales_of(x, columns) + 4 * b)), last)
        offset += minimum * load_f32(sums32_of(x, columns) + 4 * b)
        w += block.bytes
    total = add(even, odd)
    total = add(add(_LOWER(total), _UPPER(total)), sub(last, low))
    return sum_lanes(total) - offset


@inline
def _nothing():
    return zero_f32x16(), zero_f32x16(), zero_f32x8()


@inline
def dot_blocks(w, rows, columns, x, y, alpha, accumulate, block, scales8, scales1, load4, load1, dot):
    """dot_rows of quant.formats; block: the type's declaration."""
    for r in range(rows):
        sums = _nothing()
        for b in range(0, columns // 256 * 8, 8):
            for line in range(0, 8 * block.bytes, 64):
                prefetch(w + _AHEAD + line)
            sums = _eight(w, x, columns, b, sums, block, scales8, load4, dot)
            w += 8 * block.bytes
        emit(y + 4 * r, _whole(w, x, columns, sums, block, scales1, load1, dot), alpha, accumulate)
        w += columns // 32 % 8 * block.bytes


@inline
def dot_blocks_few(w, rows, columns, entries, count, accumulate, block, scales8, scales1, load4, load1, dot):
    """dot_few of quant.formats, likewise: eight blocks are unpacked once for several activation rows."""
    whole = columns // 256 * 8
    rest = whole * block.bytes
    for r in range(rows):
        for line in range(0, columns // 32 * block.bytes, 64):
            prefetch(w + _AHEAD + line)
        first = 0
        while first < count:
            together = few_of(count - first)
            x0, x1, x2, x3 = few_inputs(entries, first, together)
            s0, s1, s2, s3 = _nothing(), _nothing(), _nothing(), _nothing()
            if together == 4:
                for b in range(0, whole, 8):
                    at = w + b * block.bytes
                    s0 = _eight(at, x0, columns, b, s0, block, scales8, load4, dot)
                    s1 = _eight(at, x1, columns, b, s1, block, scales8, load4, dot)
                    s2 = _eight(at, x2, columns, b, s2, block, scales8, load4, dot)
                    s3 = _eight(at, x3, columns, b, s3, block, scales8, load4, dot)
            elif together == 2:
                for b in range(0, whole, 8):
                    at = w + b * block.bytes
                    s0 = _eight(at, x0, columns, b, s0, block, scales8, load4, dot)
                    s1 = _eight(at, x1, columns, b, s1, block, scales8, load4, dot)
            else:
                for b in range(0, whole, 8):
                    s0 = _eight(w + b * block.bytes, x0, columns, b, s0, block, scales8, load4, dot)
            t0 = _whole(w + rest, x0, columns, s0, block, scales1, load1, dot)
            t1, t2, t3 = t0, t0, t0
            if together > 1:
                t1 = _whole(w + rest, x1, columns, s1, block, scales1, load1, dot)
            if together > 2:
                t2 = _whole(w + rest, x2, columns, s2, block, scales1, load1, dot)
                t3 = _whole(w + rest, x3, columns, s3, block, scales1, load1, dot)
            emit_few(entries, first, together, r, (t0, t1, t2, t3), accumulate)
            first += together
        w += columns // 32 * block.bytes


@inline
def unpack_blocks(w, rows, columns, q, scale, minimum, block, scales1, load1):
    """unpack_rows of quant.formats."""
    for b in range(rows * columns // 32):
        d, m = scales1(w)
        store_i8x32(q + 32 * b, load1(w))
        store_f32(scale + 4 * b, d)
        store_f32(minimum + 4 * b, m)
        w += block.bytes


@inline
def unpack_nibbles(w, row_bytes, columns, tile, scales, minima, block, scales16, split_nibbles):
    """unpack_tile of quant.formats, for types whose nibbles are the field qs."""
    for b in range(columns // 32):
        d, m = scales16(w, row_bytes)
        store_f32x16(scales + 64 * b, d)
        store_f32x16(minima + 64 * b, m)
        s0, s1, s2, s3 = turn4(w + block.qs, row_bytes)
        _store_step(split_nibbles(s0), tile + 512 * b)
        _store_step(split_nibbles(s1), tile + 512 * b + 64)
        _store_step(split_nibbles(s2), tile + 512 * b + 128)
        _store_step(split_nibbles(s3), tile + 512 * b + 192)
        w += block.bytes


@inline
def _store_step(halves, place):
    """Four columns of 16 rows, and those 16 columns on."""
    first, second = halves
    store_i8x64(place, first)
    store_i8x64(place + 256, second)


def fields(kind: Vector, element: Any, size: int, at: int, convert: Convert) -> Intrinsic:
    """Declare an intrinsic: w -> a field of each of the blocks from w on, of `size` bytes, as a vector of that kind.

    The field begins `at` bytes into a block; `convert` gets an LLVM vector of eight elements, or of four for i8x64.
    """
    count = 4 if kind == i8x64 else 8
    gather = _pick if UNIT.startswith("avx512") and (element != I8 or VPERMB) else _insert
    return intrinsic(
        lambda w: (kind, lambda builder, w: convert(builder, gather(builder, w, element, count, size, at)))
    )


def halves8(size: int, at: int) -> Intrinsic:
    """Declare an intrinsic: a float16 of each of eight blocks, as f32x8; see `fields`."""
    return fields(f32x8, F16, size, at, lambda builder, halves: builder.fpext(halves, vector_of(F32, 8)))


def fields16(kind: Vector, element: Any, convert: Convert) -> Intrinsic:
    """Declare an intrinsic: (address, row_bytes) -> what is there in each of 16 rows, as a vector of that kind."""

    def generate(builder: Any, address: Any, row_bytes: Any) -> Any:
        values = ir.Constant(vector_of(element, 16), ir.Undefined)
        for row in range(16):
            at = builder.add(address, builder.mul(row_bytes, ir.Constant(row_bytes.type, row)))
            value = builder.load(pointer(builder, at, element), align=1)
            values = builder.insert_element(values, value, I32(row))
        return convert(builder, values)

    return intrinsic(lambda address, row_bytes: (kind, generate))


def _pick(builder: Any, w: Any, element: Any, count: int, size: int, at: int) -> Any:
    """64 bytes at a time are loaded, of which an instruction picks words, or bytes; nothing behind the blocks is read."""
    width = 1 if element == I8 else 2
    lanes, fit = 64 // width, (64 - width - at) // size + 1
    picked, places = None, list[int]()
    for first in range(0, count, fit):
        start = min(first * size, count * size - 64)
        loaded = _load(builder, w, start, vector_of(element, lanes))
        own = [(block * size + at - start) // width for block in range(first, min(first + fit, count))]
        if picked is None:
            picked, places = loaded, own
        else:
            both = [*places, *(lanes + place for place in own)]
            picked = shuffle(builder, picked, loaded, both + [0] * (lanes - len(both)))
            places = list(range(len(both)))
    return shuffle(builder, picked, picked, places)


def _insert(builder: Any, w: Any, element: Any, count: int, size: int, at: int) -> Any:
    values = ir.Constant(vector_of(element, count), ir.Undefined)
    for block in range(count):
        values = builder.insert_element(values, _load(builder, w, size * block + at, element), I32(block))
    return values


def _load(builder: Any, w: Any, offset: int, kind: Any) -> Any:
    return builder.load(pointer(builder, builder.add(w, ir.Constant(w.type, offset)), kind), align=1)
