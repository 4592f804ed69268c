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
from quant.blocks.group_sums import sums_by_group
from quant.blocks.lookup import VPERMB
from quant.blocks.rows import emit
from quant.blocks.totals import add_groups, fma1, of_groups_of_32
from quant.declarations import Intrinsic, Vector
from quant.int8_dot import UNIT
from quant.jit import inline, intrinsic
from quant.simd import (
    F16,
    F32,
    I8,
    I32,
    concat,
    f32x8,
    i8x64,
    load_f32,
    load_i8x16,
    load_i8x32,
    load_i8x64,
    permute,
    pointer,
    prefetch,
    shuffle,
    store_f32,
    store_f32x16,
    store_i8x32,
    store_i8x64,
    sum_lanes,
    to_f32,
    vector_of,
    zero_f32x8,
    zero_i32x8,
    zero_i32x16,
)
from quant.tile import turn4

Convert = Callable[[Any, Any], Any]  # (builder, LLVM vector) -> LLVM vector

_FIRST = permute([32 * block + i for block in range(4) for i in range(16)])
_SECOND = permute([32 * block + 16 + i for block in range(4) for i in range(16)])
_sums = sums_by_group(((0, 1, 2, 3), (4, 5, 6, 7)), bits=0)
_AHEAD = 6912  # bytes: prefetch distance (2304: 5 % slower from memory, as 2 threads of a Zen 5 read it)


@inline
def packed4(w, stride):
    """16 bytes at w, and at the same place of the next three blocks: i8x64."""
    first = concat(load_i8x16(w), load_i8x16(w + stride))
    return concat(first, concat(load_i8x16(w + 2 * stride), load_i8x16(w + 3 * stride)))


@inline
def _products(w, x, load4, dot):
    """The dot products of four blocks and their activations, i32x16: the sum of four lanes is a block's."""
    columns = concat(load_i8x64(x), load_i8x64(x + 64))
    first, second = load4(w)
    return dot(dot(zero_i32x16(), first, _FIRST(columns)), second, _SECOND(columns))


@inline
def _add_last(w, x, columns, block, scales1, load1, dot):
    """The total of the blocks behind the last whole 256 columns of a row, which begin at w."""
    total = np.float32(0)
    for b in range(columns // 256 * 8, columns // 32):
        scale, minimum = scales1(w)
        products = sum_lanes(to_f32(dot(zero_i32x8(), load1(w), load_i8x32(x + 32 * b))))
        d, s = load_f32(scales_of(x, columns) + 4 * b), load_f32(sums32_of(x, columns) + 4 * b)
        total = fma1(products, scale * d, fma1(-minimum, s, total))
        w += block.bytes
    return total


@inline
def dot_blocks(w, rows, columns, x, y, alpha, accumulate, block, scales8, scales1, load4, load1, dot):
    """dot_rows of quant.formats; block: the type's declaration. The sums are those of quant.blocks.totals."""
    for r in range(rows):
        total = zero_f32x8()
        for b in range(columns // 256):
            for line in range(0, 8 * block.bytes, 64):
                prefetch(w + _AHEAD + line)
            scale, minimum = scales8(w)
            d, s = of_groups_of_32(x, columns, b)
            first = _products(w, x + 256 * b, load4, dot)
            sums = _sums(first, _products(w + 4 * block.bytes, x + 256 * b + 128, load4, dot))
            total = add_groups(total, sums, scale, minimum, d, s)
            w += 8 * block.bytes
        last = _add_last(w, x, columns, block, scales1, load1, dot)
        emit(y + 4 * r, sum_lanes(total) + last, alpha, accumulate)
        w += columns // 32 % 8 * block.bytes


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
