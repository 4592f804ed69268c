"""Rows of weights times a few activation rows: a row is unpacked once for all of them, and memory comes as one stream.

For types with blocks of 256 columns and a scale for each 16. The sums are those of quant.blocks.totals, bit by bit. A block is
unpacked into four vectors of words of four columns: lane l of vector k has the k-th word of a group. So four products add up a
lane's group, and nothing is left to be put together. Lane 4 * i + j has group 4 * j + i, the order that transposing words
gives; activations are laid out likewise, once for all rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from quant.activation import scales_of, sums16_of
from quant.declarations import vector_llvm
from quant.int8_dot import UNIT, dot_wide_llvm
from quant.jit import inline, intrinsic
from quant.simd import (
    I8,
    I32,
    constant_of,
    f32x16,
    i8x64,
    load_f32,
    load_f32x8,
    load_f32x16,
    load_i8x64,
    load_i64,
    mul,
    permute,
    pointer,
    prefetch,
    shuffle,
    splat,
    store_f32,
    store_f32x16,
    store_i8x64,
    vector_of,
)
from quant.tile import ENTRY, fma_llvm, offset_by

BY_ROWS = UNIT == "avx512vnni"  # elsewhere tiles are quicker, or it was not measured
LANES = [4 * (lane % 4) + lane // 4 for lane in range(16)]  # the group of each lane
# Of 256 columns of an activation: words [4, 64 bytes], float32 d [16] and s [16].
_D, _S, _BLOCK_BYTES = 256, 320, 384
# Rows, and their bytes, that all tokens are multiplied with before the next: they stay in the first-level cache.
_ROWS, _ROWS_BYTES = 32, 24576
_AHEAD = 4096  # bytes from what is read to what is asked for

_by_groups, _by_pairs = permute(LANES), permute([group // 2 for group in LANES])


class Step(NamedTuple):
    """What rows are multiplied with, and where products go: see quant.kernels.step_tiles."""

    entries: Any
    count: Any
    added: Any
    accumulate: Any


def rows_scratch_bytes(columns: int, entries: int) -> int:
    """Scratch memory that step_rows of quant.formats needs for so many columns and entries."""
    return entries * (columns // 256 * _BLOCK_BYTES + 4 * _ROWS)


def _woven(builder: Any, a: Any, b: Any, size: int) -> list[Any]:
    """Pieces of `size` lanes of a and b in turn, from the lower and from the upper half of each four lanes."""
    turns = [4 * four + i for four in range(4) for i in range(0, 2, size)]
    low = [lane + from_b + i for lane in turns for from_b in (0, 16) for i in range(size)]
    return [shuffle(builder, a, b, low), shuffle(builder, a, b, [lane + 2 for lane in low])]


@intrinsic
def _turn_words(a: Any, b: Any, c: Any, d: Any) -> Any:
    """256 columns as they come, i8x64 each -> four vectors of words as told above."""

    def generate(builder: Any, *columns: Any) -> list[Any]:
        a, b, c, d = (builder.bitcast(vector, vector_of(I32, 16)) for vector in columns)
        halves = zip(_woven(builder, a, b, 1), _woven(builder, c, d, 1), strict=True)
        words = [word for left, right in halves for word in _woven(builder, left, right, 2)]
        return [builder.bitcast(word, vector_of(I8, 64)) for word in words]

    return (i8x64, 4), generate


@inline
def _turn_activation(x, columns, offset, place, step):
    """The q8 row at x -> _BLOCK_BYTES for each 256 columns, `step` apart; s is multiplied by an offset."""
    for b in range(columns // 256):
        q = x + 256 * b
        w0, w1, w2, w3 = _turn_words(load_i8x64(q), load_i8x64(q + 64), load_i8x64(q + 128), load_i8x64(q + 192))
        store_i8x64(place, w0)
        store_i8x64(place + 64, w1)
        store_i8x64(place + 128, w2)
        store_i8x64(place + 192, w3)
        store_f32x16(place + _D, _by_pairs(load_f32x8(scales_of(x, columns) + 32 * b)))
        store_f32x16(place + _S, mul(_by_groups(load_f32x16(sums16_of(x, columns) + 64 * b)), splat(offset)))
        place += step


@intrinsic
def _add_block(totals: Any, words: Any, scale: Any, place: Any) -> Any:
    """The totals of some tokens with 256 columns more; place: of these columns of the first token, the others behind it."""

    def generate(builder: Any, totals: Any, words: Any, scale: Any, place: Any) -> list[Any]:
        less, new = builder.fneg(scale), []
        for token, total in enumerate(totals):
            own = offset_by(builder, place, _BLOCK_BYTES * token)
            sums = constant_of(vector_of(I32, 16), 0)
            for k, w in enumerate(words):
                x = builder.load(pointer(builder, offset_by(builder, own, 64 * k), w.type), align=1)
                sums = dot_wide_llvm(builder, sums, w, x)
            d, s = (builder.load(pointer(builder, offset_by(builder, own, at), total.type), align=1) for at in (_D, _S))
            value = fma_llvm(builder, less, s, total)
            new.append(fma_llvm(builder, builder.sitofp(sums, total.type), builder.fmul(scale, d), value))
        return new

    return totals, generate


@intrinsic
def _store_sums(totals: Any, place: Any) -> Any:
    """The sum of each token's total, halves added until one is left -> float32, beside each other."""

    def generate(builder: Any, totals: Any, place: Any) -> None:
        for first in range(0, len(totals), 4):
            some = totals[first : first + 4]
            a, b, c, d = (4 * some)[:4]
            ab, cd = (builder.fadd(*_woven(builder, *pair, 2)) for pair in ((a, b), (c, d)))
            even = [lane + i + second for lane in range(0, 16, 4) for second in (0, 16) for i in (0, 2)]
            odd = [lane + 1 for lane in even]
            sums = builder.fadd(shuffle(builder, ab, cd, even), shuffle(builder, ab, cd, odd))
            for half in (8, 4):
                sums = builder.fadd(*(shuffle(builder, sums, sums, range(at, at + half)) for at in (0, half)))
            kept = shuffle(builder, sums, sums, range(len(some)))
            builder.store(kept, pointer(builder, offset_by(builder, place, 4 * first), kept.type), align=1)

    return None, generate


def _zeros(tokens: int) -> Any:
    zero = constant_of(vector_llvm(f32x16), 0.0)
    return intrinsic(lambda: ((f32x16, tokens), lambda _builder: [zero] * tokens))


_zero1, _zero2, _zero3, _zero4, _zero5, _zero6, _zero7, _zero8 = (_zeros(tokens) for tokens in range(1, 9))


@inline
def _rows_times(zero, words_of, scales_of, block, w, rows, columns, x, count, sums, ahead):
    """Rows times as many tokens as `zero` has totals -> float32 [rows, count] at sums; ahead: bytes that are asked for."""
    for _ in range(rows):
        totals, place = zero(), x
        for _ in range(columns // 256):
            for line in range(0, ahead, 64):
                prefetch(w + _AHEAD + line)
            totals = _add_block(totals, words_of(w), scales_of(w), place)
            place += count * _BLOCK_BYTES
            w += block.bytes
        _store_sums(totals, sums)
        sums += 4 * count


@inline
def _write(sums, first, rows, step):
    """The results of rows first to first + rows."""
    for t in range(step.count):
        entry, adds = step.entries + ENTRY.bytes * t, 1 if t >= step.added else step.accumulate
        y, factor = load_i64(entry + ENTRY.result) + 4 * first, load_f32(entry + ENTRY.factor)
        for r in range(rows):
            product = factor * load_f32(sums + 4 * (step.count * r + t))
            store_f32(y + 4 * r, load_f32(y + 4 * r) + product if adds else product)


@inline
def step_rows_by_16(words_of, scales_of, offset, block, w, rows, columns, step, scratch):
    """step_rows of quant.formats, of types with a scale for 16 columns, whose minimum is `offset` times that.

    words_of(w), scales_of(w): a block in the order told above, four i8x64 and f32x16.
    """
    row_bytes, count = columns // 256 * block.bytes, step.count
    sums = scratch + columns // 256 * count * _BLOCK_BYTES
    for t in range(count):
        x = load_i64(step.entries + ENTRY.bytes * t + ENTRY.activation)
        _turn_activation(x, columns, offset, scratch + _BLOCK_BYTES * t, count * _BLOCK_BYTES)
    most, first = min(_ROWS, max(_ROWS_BYTES // row_bytes, 1)), 0
    while first < rows:
        some, t, ahead = min(most, rows - first), 0, block.bytes
        while t < count:
            x, y, tokens = scratch + _BLOCK_BYTES * t, sums + 4 * t, min(count - t, 8)
            if tokens == 8:
                _rows_times(_zero8, words_of, scales_of, block, w, some, columns, x, count, y, ahead)
            elif tokens == 7:
                _rows_times(_zero7, words_of, scales_of, block, w, some, columns, x, count, y, ahead)
            elif tokens == 6:
                _rows_times(_zero6, words_of, scales_of, block, w, some, columns, x, count, y, ahead)
            elif tokens == 5:
                _rows_times(_zero5, words_of, scales_of, block, w, some, columns, x, count, y, ahead)
            elif tokens == 4:
                _rows_times(_zero4, words_of, scales_of, block, w, some, columns, x, count, y, ahead)
            elif tokens == 3:
                _rows_times(_zero3, words_of, scales_of, block, w, some, columns, x, count, y, ahead)
            elif tokens == 2:
                _rows_times(_zero2, words_of, scales_of, block, w, some, columns, x, count, y, ahead)
            else:
                _rows_times(_zero1, words_of, scales_of, block, w, some, columns, x, count, y, ahead)
            t += tokens
            ahead = 0
        _write(sums, first, some, step)
        first += some
        w += some * row_bytes
