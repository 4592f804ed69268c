"""Register tiles for prefill: 16 weight rows, interleaved so that one vector holds a step of all of them, by a few tokens.

A tile of int8 weights is [columns / 4, 16 rows, 4 columns]; a tile of float32 weights is [columns, 16 rows]. A table
gives for each token the address of its activation row, the address of its result and a float32 factor. The running sums
are tuples of vectors, one a token, that live in registers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from quant.int8_dot import UNIT, dot_wide_llvm, join
from quant.simd import F32, I32, call_llvm, f32x16, i8x64, i32x16, pointer, shuffle, splat_llvm

ENTRY_BYTES = 32  # of the token table: int64 activation, int64 result, float32 factor, 12 unused
# Tokens of a tile: sums and totals of the most fill 24 of 32 zmm registers, or 12 of 16 ymm registers.
MANY, SOME, FEW = (12, 8, 4) if UNIT.startswith("avx512") else (3, 2, 1)
_STEPS = 4  # of 4 columns, unrolled in dot_columns


def _entry(builder: Any, table: Any, token: int, field: int, kind: Any) -> Any:
    place = builder.add(table, ir.Constant(table.type, token * ENTRY_BYTES + 8 * field))
    return builder.load(pointer(builder, place, kind))


def _broadcast(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    scalar = builder.load(pointer(builder, builder.add(address, offset), kind), align=1)
    return splat_llvm(builder, scalar, 16)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call_llvm(builder, "llvm.fma.v16f32", f32x16.llvm, [a, b, c])


def _zeros(vector: Any, tokens: int) -> Any:
    @intrinsic
    def zeros(_context: Any) -> Any:
        result = types.UniTuple(vector, tokens)

        def generate(context: Any, builder: Any, signature: Any, _a: Any) -> Any:
            zero = ir.Constant(vector.llvm, [0.0 if vector.element == "f32" else 0] * 16)
            return context.make_tuple(builder, signature.return_type, [zero] * tokens)

        return result(), generate

    return zeros


many_sums, some_sums, few_sums = (_zeros(i32x16, tokens) for tokens in (MANY, SOME, FEW))
many_totals, some_totals, few_totals = (_zeros(f32x16, tokens) for tokens in (MANY, SOME, FEW))


@intrinsic
def dot_columns(_context: Any, sums: Any, tile: Any, table: Any, column: Any) -> Any:
    """i32x16 sums of 16 columns from `column` on; tile is the address of those columns of the int8 tile."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        packed, tile, table, column = arguments
        new = cgutils.unpack_tuple(builder, packed)
        rows = [_entry(builder, table, token, 0, table.type) for token in range(len(new))]
        for step in range(_STEPS):
            place = builder.add(tile, ir.Constant(tile.type, 64 * step))
            w = builder.load(pointer(builder, place, i8x64.llvm), align=1)
            offset = builder.add(column, ir.Constant(column.type, 4 * step))
            for token, row in enumerate(rows):
                x = builder.bitcast(_broadcast(builder, row, offset, I32), i8x64.llvm)
                new[token] = dot_wide_llvm(builder, new[token], w, x)
        return context.make_tuple(builder, signature.return_type, new)

    return sums(sums, tile, table, column), generate


@intrinsic
def scale_columns(
    _context: Any, totals: Any, sums: Any, scale: Any, minimum: Any, table: Any, d_offset: Any, s_offset: Any
) -> Any:
    """totals + scale * d * sums - minimum * s: d and s stand at these offsets of each token's activation row."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        packed, packed_sums, scale, minimum, table, d_offset, s_offset = arguments
        less = builder.fneg(minimum)
        new = []
        pairs = zip(cgutils.unpack_tuple(builder, packed), cgutils.unpack_tuple(builder, packed_sums), strict=True)
        for token, (total, whole) in enumerate(pairs):
            row = _entry(builder, table, token, 0, table.type)
            factor = builder.fmul(scale, _broadcast(builder, row, d_offset, F32))
            total = _fma(builder, less, _broadcast(builder, row, s_offset, F32), total)
            new.append(_fma(builder, builder.sitofp(whole, f32x16.llvm), factor, total))
        return context.make_tuple(builder, signature.return_type, new)

    return totals(totals, sums, scale, minimum, table, d_offset, s_offset), generate


@intrinsic
def fma_column(_context: Any, totals: Any, w: Any, table: Any, offset: Any) -> Any:
    """totals + w * x, where x stands at this offset of each token's float32 activation row."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        packed, w, table, offset = arguments
        new = []
        for token, total in enumerate(cgutils.unpack_tuple(builder, packed)):
            row = _entry(builder, table, token, 0, table.type)
            new.append(_fma(builder, w, _broadcast(builder, row, offset, F32), total))
        return context.make_tuple(builder, signature.return_type, new)

    return totals(totals, w, table, offset), generate


@intrinsic
def write_totals(_context: Any, totals: Any, table: Any, accumulate: Any) -> Any:
    """result[0..15] = factor * total for each token of the table, added to what is there if accumulate is not 0."""

    def generate(context: Any, builder: Any, _s: Any, arguments: Any) -> Any:
        packed, table, accumulate = arguments
        adds = builder.icmp_signed("!=", accumulate, ir.Constant(accumulate.type, 0))
        zero = ir.Constant(f32x16.llvm, [0.0] * 16)
        for token, total in enumerate(cgutils.unpack_tuple(builder, packed)):
            place = pointer(builder, _entry(builder, table, token, 1, table.type), f32x16.llvm)
            factor = splat_llvm(builder, _entry(builder, table, token, 2, F32), 16)
            there = builder.select(adds, builder.load(place, align=1), zero)
            builder.store(builder.fadd(there, builder.fmul(factor, total)), place, align=1)
        return context.get_dummy_value()

    return types.void(totals, table, accumulate), generate


def _transpose(words: int) -> Any:
    @intrinsic
    def transpose(_context: Any, source: Any, source_stride: Any, target: Any, target_stride: Any) -> Any:
        row_type = ir.VectorType(I32, words)

        def generate(context: Any, builder: Any, _s: Any, arguments: Any) -> Any:
            source, source_stride, target, target_stride = arguments
            rows = []
            for row in range(16):
                place = builder.add(source, builder.mul(source_stride, ir.Constant(source_stride.type, row)))
                rows.append(builder.load(pointer(builder, place, row_type), align=1))
            rows = [join(builder, rows[row::words]) for row in range(words)]
            distance = 1
            while distance < words:
                rows = _exchange(builder, rows, distance)
                distance *= 2
            for row, value in enumerate(rows):
                place = builder.add(target, builder.mul(target_stride, ir.Constant(target_stride.type, row)))
                builder.store(value, pointer(builder, place, i32x16.llvm), align=1)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp, types.intp), generate

    return transpose


def _exchange(builder: Any, rows: list[Any], distance: int) -> list[Any]:
    """Transpose each 2 x 2 arrangement of blocks of `distance` words."""
    new = list(rows)
    for i in range(len(rows)):
        if i & distance:
            continue
        upper, lower = rows[i], rows[i + distance]
        new[i] = shuffle(builder, upper, lower, [16 + x - distance if x & distance else x for x in range(16)])
        new[i + distance] = shuffle(
            builder, upper, lower, [16 + x if x & distance else x + distance for x in range(16)]
        )
    return new


# 16 rows of 16, 8 or 4 four-byte words -> the transposed words, 16 to a row; strides in bytes between rows.
transpose16, transpose8, transpose4 = _transpose(16), _transpose(8), _transpose(4)


@intrinsic
def gather_f16(_context: Any, source: Any, stride: Any) -> Any:
    """The float16 at `source` of 16 rows, `stride` bytes apart -> f32x16."""

    def generate(_c: Any, builder: Any, _s: Any, arguments: Any) -> Any:
        source, stride = arguments
        halves = ir.Constant(ir.VectorType(ir.HalfType(), 16), ir.Undefined)
        for row in range(16):
            place = builder.add(source, builder.mul(stride, ir.Constant(stride.type, row)))
            half = builder.load(pointer(builder, place, ir.HalfType()), align=1)
            halves = builder.insert_element(halves, half, I32(row))
        return builder.fpext(halves, f32x16.llvm)

    return f32x16(types.intp, types.intp), generate
