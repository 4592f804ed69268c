"""Register tiles for prefill: 16 weight rows, interleaved so that one vector holds a step of all of them, by a few tokens.

A tile of int8 weights is [columns / 4, 16 rows, 4 columns]. It is multiplied with a panel of MANY tokens, which is their q8
rows word by word: [columns / 4, MANY] words of q, then d, s32 and s16 as [n, MANY]. A tile of float32 weights is [columns,
16 rows]. Each token has an entry that tells where its input is and where its results go. The running sums are tuples of
vectors, one a token, that live in registers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llvmlite import ir

from quant.declarations import Vector, vector_llvm
from quant.int8_dot import UNIT, dot_wide_llvm, join
from quant.jit import inline, intrinsic
from quant.layout import Layout
from quant.simd import (
    F16,
    F32,
    I32,
    bit_and,
    call_llvm,
    constant_of,
    f32x16,
    i8x64,
    i32x16,
    pointer,
    shift_right,
    shuffle,
    splat_llvm,
    store_i8x64,
    vector_of,
)

# Of one token: the addresses of its float32 activation row and of its results, and what is multiplied with each product.
ENTRY = Layout("activation", "result", "factor", "unused")  # 32 bytes: two entries a cache line
# Tokens of a tile: sums and totals of the most fill 24 of 32 zmm or NEON registers, or 12 of 16 ymm registers; with I8MM,
# which takes two tokens at a time, the totals alone 16, and the sums as many.
MANY, SOME, FEW = (12, 8, 4) if UNIT.startswith("avx512") else (4, 2, 1) if UNIT == "i8mm" else (3, 2, 1)
_STEPS = 4  # of 4 columns, unrolled in dot_columns


def entry_llvm(builder: Any, entries: Any, token: int, field: int, kind: Any) -> Any:
    """Load a field, given by its offset, of one token's entry."""
    place = builder.add(entries, ir.Constant(entries.type, token * ENTRY.bytes + field))
    return builder.load(pointer(builder, place, kind))


def _broadcast(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    scalar = builder.load(pointer(builder, builder.add(address, offset), kind), align=1)
    return splat_llvm(builder, scalar, 16)


def fma_llvm(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    return call_llvm(builder, "llvm.fma.v16f32", a.type, [a, b, c])


def lane_llvm(builder: Any, base: Any, token: int) -> Any:
    """The float32 of a token in a row of a panel, in every lane."""
    return splat_llvm(builder, builder.load(pointer(builder, offset_by(builder, base, 4 * token), F32), align=1), 16)


def offset_by(builder: Any, base: Any, offset: int) -> Any:
    """An address so many bytes on."""
    return builder.add(base, ir.Constant(base.type, offset))


def _zeros(vector: Vector, tokens: int) -> Any:
    zero = constant_of(vector_llvm(vector), 0.0 if vector.element == "f32" else 0)
    return intrinsic(lambda: ((vector, tokens), lambda _builder: [zero] * tokens))


# Fewer tokens get two sums each, for even and odd steps, since one would wait for its last product (4 cycles).
many_sums, some_sums, few_sums = (_zeros(i32x16, count) for count in (MANY, 2 * SOME, 2 * FEW))
many_totals, some_totals, few_totals = (_zeros(f32x16, tokens) for tokens in (MANY, SOME, FEW))


def _words(builder: Any, step: Any, tokens: int) -> list[Any]:
    """Four columns of each token, 16 times each."""
    if UNIT == "dotprod":
        # `sdot` takes any of four words of a register: one load for all tokens, and what lies behind them
        four = builder.load(pointer(builder, step, vector_of(I32, 4)), align=1)
        return [shuffle(builder, four, four, [token] * 16) for token in range(tokens)]
    words = [pointer(builder, offset_by(builder, step, 4 * token), I32) for token in range(tokens)]
    return [splat_llvm(builder, builder.load(word, align=1), 16) for word in words]


@intrinsic
def dot_columns(sums: Any, tile: Any, panel: Any) -> Any:
    """i32x16 sums of 16 columns, given the addresses of those columns in the int8 tile and in the panel."""

    def generate(builder: Any, sums: list[Any], tile: Any, panel: Any) -> Any:
        bytes64 = vector_of(ir.IntType(8), 64)
        tokens = len(sums) if len(sums) == MANY else len(sums) // 2
        for step in range(_STEPS):
            w = builder.load(pointer(builder, offset_by(builder, tile, 64 * step), bytes64), align=1)
            for token, x in enumerate(_words(builder, offset_by(builder, panel, 4 * MANY * step), tokens)):
                at = (step * tokens + token) % len(sums)
                sums[at] = dot_wide_llvm(builder, sums[at], w, builder.bitcast(x, bytes64))
        return sums

    return sums, generate


def scaled(builder: Any, totals: list[Any], sums: Iterable[Any], scale: Any, minimum: Any, d: Any, s: Any) -> list[Any]:
    """The LLVM code of `scale_columns`, with one sum a token."""
    less, new = builder.fneg(minimum), []
    for token, (total, whole) in enumerate(zip(totals, sums, strict=True)):
        factor = builder.fmul(scale, lane_llvm(builder, d, token))
        total = fma_llvm(builder, less, lane_llvm(builder, s, token), total)
        new.append(fma_llvm(builder, builder.sitofp(whole, total.type), factor, total))
    return new


@intrinsic
def scale_columns(totals: Any, sums: Any, scale: Any, minimum: Any, d: Any, s: Any) -> Any:
    """totals + scale * d * sums - minimum * s, given the addresses of the tokens' d and s in the panel."""

    def generate(builder: Any, totals: list[Any], sums: list[Any], scale: Any, minimum: Any, d: Any, s: Any) -> Any:
        count = len(totals)
        whole = (builder.add(*pair) for pair in zip(sums[:count], sums[count:], strict=True))
        return scaled(builder, totals, whole if len(sums) > count else sums, scale, minimum, d, s)

    return totals, generate


@intrinsic
def fma_column(totals: Any, w: Any, entries: Any, offset: Any) -> Any:
    """totals + w * x, where x stands at this offset of each token's float32 activation row."""

    def generate(builder: Any, totals: list[Any], w: Any, entries: Any, offset: Any) -> Any:
        rows = [entry_llvm(builder, entries, token, ENTRY.activation, entries.type) for token in range(len(totals))]
        pairs = zip(rows, totals, strict=True)
        return [fma_llvm(builder, w, _broadcast(builder, row, offset, F32), total) for row, total in pairs]

    return totals, generate


@intrinsic
def write_totals(totals: Any, entries: Any, offset: Any, accumulate: Any) -> Any:
    """16 results = factor * total, `offset` bytes into each token's, added to what is there if accumulate is not 0."""

    def generate(builder: Any, totals: list[Any], entries: Any, offset: Any, accumulate: Any) -> None:
        adds = builder.icmp_signed("!=", accumulate, ir.Constant(accumulate.type, 0))
        for token, total in enumerate(totals):
            result = entry_llvm(builder, entries, token, ENTRY.result, entries.type)
            place = pointer(builder, builder.add(result, offset), total.type)
            factor = splat_llvm(builder, entry_llvm(builder, entries, token, ENTRY.factor, F32), 16)
            there = builder.select(adds, builder.load(place, align=1), constant_of(total.type, 0.0))
            builder.store(builder.fadd(there, builder.fmul(factor, total)), place, align=1)

    return None, generate


def _row(builder: Any, base: Any, stride: Any, row: int) -> Any:
    return builder.add(base, builder.mul(stride, ir.Constant(stride.type, row)))


def _turned(builder: Any, rows: list[Any], words: int) -> list[Any]:
    """The addresses of 16 rows of `words` four-byte words -> that many vectors of 16 words.

    Four words of every fourth row fill a register by loads alone, so that words only change places within 128 bits.
    """
    quarter = vector_of(I32, 4)
    columns: list[Any] = []
    for first in range(0, words, 4):
        parts = [builder.load(pointer(builder, offset_by(builder, row, 4 * first), quarter), align=1) for row in rows]
        a, b, c, d = (join(builder, parts[row::4]) for row in range(4))
        low, high = _woven(builder, a, b, 1), _woven(builder, c, d, 1)
        for left, right in zip(low, high, strict=True):
            columns += _woven(builder, left, right, 2)
    return columns


def _woven(builder: Any, a: Any, b: Any, size: int) -> tuple[Any, Any]:
    """Pieces of `size` words of a and b in turn, from the lower and from the upper half of each four words."""
    low = [word + from_b for lane in range(0, 16, 4) for piece in range(0, 2, size)
           for from_b in (0, 16) for word in range(lane + piece, lane + piece + size)]  # fmt: skip
    return shuffle(builder, a, b, low), shuffle(builder, a, b, [word + 2 for word in low])


def _transpose(words: int) -> Any:
    """Declare a transposition of 16 rows of `words` four-byte words, that many 16 to a row afterwards."""

    def generate(builder: Any, source: Any, source_stride: Any, target: Any, target_stride: Any) -> None:
        rows = [_row(builder, source, source_stride, row) for row in range(16)]
        for word, value in enumerate(_turned(builder, rows, words)):
            builder.store(value, pointer(builder, _row(builder, target, target_stride, word), value.type), align=1)

    return intrinsic(lambda source, source_stride, target, target_stride: (None, generate))


def _turn4(result: Vector) -> Any:
    def generate(builder: Any, source: Any, stride: Any) -> list[Any]:
        rows = [_row(builder, source, stride, row) for row in range(16)]
        return [builder.bitcast(words, vector_llvm(result)) for words in _turned(builder, rows, 4)]

    return intrinsic(lambda source, stride: ((result, 4), generate))


# 16 bytes of each of 16 rows, `stride` apart -> four vectors that hold 4 bytes of every row each.
turn4, turn4_words = _turn4(i8x64), _turn4(i32x16)


@inline
def store_nibbles(packed, low, high):
    """A step of nibbles: the low ones to one place, the high ones to another."""
    store_i8x64(low, bit_and(packed, 15))
    store_i8x64(high, shift_right(packed, 4))


# Strides in bytes between rows.
transpose16, transpose8, transpose4 = _transpose(16), _transpose(8), _transpose(4)


@intrinsic
def pack16(rows: Any, offset: Any, target: Any) -> Any:
    """Words 0..15, `offset` bytes on, of 16 rows, given by a table of addresses -> 16 x MANY words, word by word."""

    def generate(builder: Any, rows: Any, offset: Any, target: Any) -> None:
        narrow = vector_of(I32, MANY)
        table = [builder.load(pointer(builder, offset_by(builder, rows, 8 * row), rows.type)) for row in range(16)]
        for word, value in enumerate(_turned(builder, [builder.add(row, offset) for row in table], 16)):
            kept = shuffle(builder, value, value, range(MANY))
            builder.store(kept, pointer(builder, offset_by(builder, target, 4 * MANY * word), narrow), align=1)

    return None, generate


@intrinsic
def gather_f16(source: Any, stride: Any) -> Any:
    """The float16 at `source` of 16 rows, `stride` bytes apart -> f32x16."""

    def generate(builder: Any, source: Any, stride: Any) -> Any:
        halves = ir.Constant(vector_of(F16, 16), ir.Undefined)
        for row in range(16):
            at = builder.add(source, builder.mul(stride, ir.Constant(stride.type, row)))
            halves = builder.insert_element(halves, builder.load(pointer(builder, at, F16), align=1), I32(row))
        return builder.fpext(halves, vector_of(F32, 16))

    return f32x16, generate
