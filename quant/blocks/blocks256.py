"""dot_rows of types with blocks of 256 columns: rows are multiplied one after the other, or four at a time.

One after the other, memory comes as a stream that a core fetches on its own. Four at a time, an activation is permuted
once for all of them. Every row's sum has the same order, whichever rows are multiplied with it.

A format tells what differs by helpers:

permuted_x(x, d, s32, s16)        256 columns of the activation at x, in the order in which the format unpacks its weights,
                                  with what a block needs of their scales (d) and sums (s32, s16): a tuple of vectors
add_products(w, permuted, total)  the f32x16 total, with the products of the block at w and those 256 columns
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant.activation import scales_of, sums16_of, sums32_of
from quant.blocks.rows import emit, emit_few, few_inputs, few_of
from quant.declarations import Intrinsic, Vector
from quant.jit import inline, intrinsic
from quant.simd import (  # fmt: skip
    I32,
    i32x8,
    pointer,
    prefetch,
    shuffle,
    splat_llvm,
    sum_lanes,
    zero_f32x16,
)

_AHEAD = 4096  # bytes from what is read to what is asked for


@inline
def dot_each(w, rows, columns, x, y, alpha, accumulate, block, permuted_x, add_products):
    """dot_rows of quant.formats, row by row: where memory is what takes time; block: the type's declaration."""
    d, s32, s16 = scales_of(x, columns), sums32_of(x, columns), sums16_of(x, columns)
    for r in range(rows):
        total = zero_f32x16()
        for b in range(columns // 256):
            for line in range(0, block.bytes, 64):
                prefetch(w + _AHEAD + line)
            total = add_products(w, permuted_x(x + 256 * b, d + 32 * b, s32 + 32 * b, s16 + 64 * b), total)
            w += block.bytes
        emit(y + 4 * r, sum_lanes(total), alpha, accumulate)


@inline
def _part_of(x, columns, b, permuted_x):
    """The b-th 256 columns of an activation row, as the format wants them."""
    d, s32, s16 = scales_of(x, columns), sums32_of(x, columns), sums16_of(x, columns)
    return permuted_x(x + 256 * b, d + 32 * b, s32 + 32 * b, s16 + 64 * b)


@inline
def dot_each_few(w, rows, columns, entries, count, accumulate, block, permuted_x, add_products):
    """dot_few of quant.formats: a block is unpacked once for several activation rows, which are permuted once for two rows.

    Of an odd number of rows the last is taken twice.
    """
    blocks, zero = columns // 256, zero_f32x16()
    row_bytes = blocks * block.bytes
    for r in range(0, rows, 2):
        v = w + (row_bytes if r + 1 < rows else 0)
        for line in range(0, 2 * row_bytes, 64):
            prefetch(v + _AHEAD + line)
        first = 0
        while first < count:
            together = few_of(count - first)
            x0, x1, x2, x3 = few_inputs(entries, first, together)
            t0, t1, t2, t3, u0, u1, u2, u3 = zero, zero, zero, zero, zero, zero, zero, zero
            if together == 4:
                for b in range(blocks):
                    at = b * block.bytes
                    x = _part_of(x0, columns, b, permuted_x)
                    t0, u0 = add_products(w + at, x, t0), add_products(v + at, x, u0)
                    x = _part_of(x1, columns, b, permuted_x)
                    t1, u1 = add_products(w + at, x, t1), add_products(v + at, x, u1)
                    x = _part_of(x2, columns, b, permuted_x)
                    t2, u2 = add_products(w + at, x, t2), add_products(v + at, x, u2)
                    x = _part_of(x3, columns, b, permuted_x)
                    t3, u3 = add_products(w + at, x, t3), add_products(v + at, x, u3)
            elif together == 2:
                for b in range(blocks):
                    at = b * block.bytes
                    x = _part_of(x0, columns, b, permuted_x)
                    t0, u0 = add_products(w + at, x, t0), add_products(v + at, x, u0)
                    x = _part_of(x1, columns, b, permuted_x)
                    t1, u1 = add_products(w + at, x, t1), add_products(v + at, x, u1)
            else:
                for b in range(blocks):
                    x, at = _part_of(x0, columns, b, permuted_x), b * block.bytes
                    t0, u0 = add_products(w + at, x, t0), add_products(v + at, x, u0)
            sums = sum_lanes(t0), sum_lanes(t1), sum_lanes(t2), sum_lanes(t3)
            emit_few(entries, first, together, r, sums, accumulate)
            if r + 1 < rows:
                sums = sum_lanes(u0), sum_lanes(u1), sum_lanes(u2), sum_lanes(u3)
                emit_few(entries, first, together, r + 1, sums, accumulate)
            first += together
        w += 2 * row_bytes


@inline
def dot_fours(w, rows, columns, x, y, alpha, accumulate, block, permuted_x, add_products):
    """The same, four rows at a time: where permuting would take a quarter of the time.

    What is asked for lies in one stream behind the four (Q2_K, 2048 columns: 88 % of the read bandwidth without, 95 with).
    """
    row_bytes = columns // 256 * block.bytes
    d, s32, s16 = scales_of(x, columns), sums32_of(x, columns), sums16_of(x, columns)
    for r in range(0, rows, 4):
        left, ahead = min(rows - r, 4) - 1, w + 3 * row_bytes + _AHEAD
        at1, at2, at3 = min(left, 1) * row_bytes, min(left, 2) * row_bytes, left * row_bytes
        t0, t1, t2, t3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
        for b in range(columns // 256):
            for line in range(0, 4 * block.bytes, 64):
                prefetch(ahead + line)
            permuted = permuted_x(x + 256 * b, d + 32 * b, s32 + 32 * b, s16 + 64 * b)
            t0, t1 = add_products(w, permuted, t0), add_products(w + at1, permuted, t1)
            t2, t3 = add_products(w + at2, permuted, t2), add_products(w + at3, permuted, t3)
            w += block.bytes
            ahead += 4 * block.bytes
        sums = _sums_of_four(t0, t1, t2, t3)
        if left == 3:
            _emit_all(y + 4 * r, sums, alpha, accumulate)
        else:
            _emit_some(y + 4 * r, sums, left, alpha, accumulate)
        w += 3 * row_bytes


@inline
def _emit_some(y, sums, left, alpha, accumulate):
    emit(y, _lane(sums, 0), alpha, accumulate)
    if left > 0:
        emit(y + 4, _lane(sums, 1), alpha, accumulate)
    if left > 1:
        emit(y + 8, _lane(sums, 2), alpha, accumulate)


@intrinsic
def _lane(vector: Any, constant: Any) -> Any:
    number = constant.literal_value
    return "f32", lambda builder, x, _: builder.extract_element(x, I32(number))


@intrinsic
def _sums_of_four(a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sum of each f32x16, as lanes: two vectors become one by halves, and again; then lanes within each four."""

    def generate(builder: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        halves = [at + i for at in (0, 16) for i in range(8)]
        quarters = [at + i for at in (0, 8, 16, 24) for i in range(4)]
        total = _added(builder, _added(builder, a, b, halves, 8), _added(builder, c, d, halves, 8), quarters, 4)
        total = _added(builder, total, total, [lane & ~2 for lane in range(16)], 2)
        total = _added(builder, total, total, [lane & ~1 for lane in range(16)], 1)
        return shuffle(builder, total, total, (0, 4, 8, 12))

    return Vector("f32", 4), generate


def _added(builder: Any, a: Any, b: Any, lanes: list[int], distance: int) -> Any:
    """Lanes of a, then of b, each with the lane that far behind it."""
    return builder.fadd(shuffle(builder, a, b, lanes), shuffle(builder, a, b, [lane + distance for lane in lanes]))


@intrinsic
def _emit_all(y: Any, sums: Any, alpha: Any, accumulate: Any) -> Any:
    """Write the results of rows that lie beside each other."""

    def generate(builder: Any, y: Any, sums: Any, alpha: Any, accumulate: Any) -> None:
        place = pointer(builder, y, sums.type)
        results = builder.fmul(splat_llvm(builder, alpha, sums.type.count), sums)
        adds = builder.icmp_signed("!=", accumulate, ir.Constant(accumulate.type, 0))
        added = builder.fadd(builder.load(place, align=1), results)
        builder.store(builder.select(adds, added, results), place, align=1)

    return None, generate


def fields8(step: int) -> Intrinsic:
    """Declare an intrinsic: a word -> i32x8, lane i being the word shifted right by i * step bits."""

    def generate(builder: Any, word: Any) -> Any:
        lanes = splat_llvm(builder, builder.trunc(word, I32), 8)
        return builder.lshr(lanes, ir.Constant(lanes.type, [i * step for i in range(8)]))

    return intrinsic(lambda word: (i32x8, generate))
