"""What types with blocks of 256 columns share: rows met two or four at a time, for which an activation is arranged once.

No row waits for another's sum, and every row's sum has the same order, whichever rows it is met with.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant.activation import scales_of, sums16_of, sums32_of
from quant.formats import emit
from quant.jit import Intrinsic, Vector, inline, intrinsic
from quant.simd import (  # fmt: skip
    I32,
    i32x8,
    pointer,
    prefetch,
    shuffle,
    splat_llvm,
    zero_f32x16,
)

# Bytes from what is read to what is asked for. Rows that are met together are no stream that a core would fetch on its
# own: with 2.6 KB IQ4_XS came at 28 GB/s of 64, with 6 KB at 46 (2048 columns).
_AHEAD = 6144


@inline
def _ask(w, block_bytes):
    for line in range(0, block_bytes - 8, 64):
        prefetch(w + _AHEAD + line)


@inline
def dot_pairs(w, rows, columns, x, y, alpha, accumulate, block_bytes, arranged, met):
    """The loop of dot_rows, two rows at a time.

    arranged(x, d, s32, s16): what rows need of the 256 columns at x, whose scales and sums are at the other addresses.
    met(w, of_x, total): the f32x16 total with the products of the block at w.
    """
    row_bytes = columns // 256 * block_bytes
    d, s32, s16 = scales_of(x, columns), sums32_of(x, columns), sums16_of(x, columns)
    for r in range(0, rows, 2):
        other = row_bytes if r + 1 < rows else 0
        first, second = zero_f32x16(), zero_f32x16()
        for b in range(columns // 256):
            of_x = arranged(x + 256 * b, d + 32 * b, s32 + 32 * b, s16 + 64 * b)
            _ask(w, block_bytes)
            _ask(w + other, block_bytes)
            first, second = met(w, of_x, first), met(w + other, of_x, second)
            w += block_bytes
        sums = _sums_of_two(first, second)
        if other:
            _emit_all(y + 4 * r, sums, alpha, accumulate)
        else:
            emit(y + 4 * r, _lane(sums, 0), alpha, accumulate)
        w += row_bytes


@inline
def dot_fours(w, rows, columns, x, y, alpha, accumulate, block_bytes, arranged, met):
    """The same, four rows at a time: where arranging is dear and a row needs few registers."""
    row_bytes = columns // 256 * block_bytes
    d, s32, s16 = scales_of(x, columns), sums32_of(x, columns), sums16_of(x, columns)
    for r in range(0, rows, 4):
        left = min(rows - r, 4) - 1
        at1, at2, at3 = min(left, 1) * row_bytes, min(left, 2) * row_bytes, left * row_bytes
        t0, t1, t2, t3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
        for b in range(columns // 256):
            of_x = arranged(x + 256 * b, d + 32 * b, s32 + 32 * b, s16 + 64 * b)
            _ask(w, block_bytes)
            _ask(w + at1, block_bytes)
            _ask(w + at2, block_bytes)
            _ask(w + at3, block_bytes)
            t0, t1 = met(w, of_x, t0), met(w + at1, of_x, t1)
            t2, t3 = met(w + at2, of_x, t2), met(w + at3, of_x, t3)
            w += block_bytes
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
def _sums_of_two(a: Any, b: Any) -> Any:
    """The sum of each f32x16, as lanes."""
    return Vector("f32", 2), _sums


@intrinsic
def _sums_of_four(a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sum of each f32x16, as lanes."""
    return Vector("f32", 4), _sums


def _sums(builder: Any, *totals: Any) -> Any:
    """Halves are added: two vectors become one until one is left, of a group of lanes a row; then within the groups."""
    vectors, group = list(totals), 16
    while len(vectors) > 1:
        halves = zip(vectors[::2], vectors[1::2], strict=True)
        low = [at + i for at in range(0, 32, group) for i in range(group // 2)]
        vectors = [_added(builder, a, b, low, group // 2) for a, b in halves]
        group //= 2
    total = vectors[0]
    while group > 1:
        group //= 2
        total = _added(builder, total, total, [lane ^ lane & group for lane in range(16)], group)
    return shuffle(builder, total, total, range(0, 16, 16 // len(totals)))


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
