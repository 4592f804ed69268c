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
    I64,
    call_llvm,
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
    prefetch_l2,
    shuffle,
    splat,
    splat_llvm,
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
# Tokens whose totals are in registers together, and bytes of these for a row.
_MOST, _TOTALS_BYTES = 8, 512
# Blocks times tokens of a part: so much of the activations stays in the first-level cache while rows go by.
_PART = 64
# Rows that are multiplied with all parts and tokens before the next: so many bytes, or the fewest for which parts pay.
_ROWS, _ROWS_BYTES, _FEWEST_ROWS = 32, 24576, 16
# Bytes from what is read to what is asked for, at least: on a Zen 4, 4096 were too few, and the first-level cache too small.
_AHEAD = 16384

_by_groups, _by_pairs = permute(LANES), permute([group // 2 for group in LANES])


class Step(NamedTuple):
    """What rows are multiplied with, and where products go: see quant.kernels.step_tiles."""

    entries: Any
    count: Any
    added: Any
    accumulate: Any


def rows_scratch_bytes(columns: int, entries: int) -> int:
    """Scratch memory that step_rows of quant.formats needs for so many columns and entries."""
    return entries * columns // 256 * _BLOCK_BYTES + _ROWS * (_sums_bytes(entries) + _TOTALS_BYTES)


@inline
def _sums_bytes(count):
    """Of a row's products with so many tokens: whole fours."""
    return (count + 3) // 4 * 16


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
    """The sum of each of four totals, halves added until one is left -> float32, beside each other."""

    def generate(builder: Any, totals: Any, place: Any) -> None:
        a, b, c, d = totals
        ab, cd = (builder.fadd(*_woven(builder, *pair, 2)) for pair in ((a, b), (c, d)))
        even = [lane + i + second for lane in range(0, 16, 4) for second in (0, 16) for i in (0, 2)]
        odd = [lane + 1 for lane in even]
        sums = builder.fadd(shuffle(builder, ab, cd, even), shuffle(builder, ab, cd, odd))
        for half in (8, 4):
            sums = builder.fadd(*(shuffle(builder, sums, sums, range(at, at + half)) for at in (0, half)))
        builder.store(sums, pointer(builder, place, sums.type), align=1)

    return None, generate


def _totals(tokens: int) -> Any:
    """Declare an intrinsic: the totals of so many tokens, beside each other in memory, or zeros, if the second operand is 0."""
    kind = vector_llvm(f32x16)

    def generate(builder: Any, place: Any, goes_on: Any) -> list[Any]:
        every = builder.icmp_signed("!=", splat_llvm(builder, goes_on, 16), constant_of(vector_of(I64, 16), 0))
        zero, align, made = constant_of(kind, 0.0), I32(1), []
        for token in range(tokens):
            at = pointer(builder, offset_by(builder, place, 64 * token), kind)
            made.append(call_llvm(builder, "llvm.masked.load.v16f32.p0", kind, [at, align, every, zero]))
        return made

    return intrinsic(lambda place, goes_on: ((f32x16, tokens), generate))


_totals1, _totals2, _totals3, _totals4, _totals5, _totals6, _totals7, _totals8 = map(_totals, range(1, _MOST + 1))


@intrinsic
def _store_totals(totals: Any, place: Any) -> Any:
    """Totals beside each other in memory."""

    def generate(builder: Any, totals: Any, place: Any) -> None:
        for token, total in enumerate(totals):
            builder.store(total, pointer(builder, offset_by(builder, place, 64 * token), total.type), align=1)

    return None, generate


class _Part(NamedTuple):
    """Some blocks of some rows, and some of `count` tokens that they are multiplied with."""

    weights: Any  # the address of the first block
    rows: Any
    row_bytes: Any
    blocks: Any  # of each row
    x: Any  # of these blocks and tokens
    count: Any
    totals: Any  # of these tokens, for each row
    goes_on: Any  # 0 where these blocks are the first
    ahead: Any  # bytes from what is read to what is asked for


@inline
def _add_part(totals_at, words_of, scales_of, block, part):
    """The totals of as many tokens as `totals_at` takes with a part more.

    Nothing branches here: constants would be loaded for every block, which made two tokens take 1.15 times as long.
    """
    row, here = part.weights, part.totals
    for _ in range(part.rows):
        w, place, totals = row, part.x, totals_at(here, part.goes_on)
        for _ in range(part.blocks):
            for line in range(0, block.bytes, 64):
                prefetch_l2(w + part.ahead + line)
            totals = _add_block(totals, words_of(w), scales_of(w), place)
            place += part.count * _BLOCK_BYTES
            w += block.bytes
        _store_totals(totals, here)
        row += part.row_bytes
        here += _TOTALS_BYTES


@inline
def _sum_up(totals, rows, tokens, sums, step):
    """The sums of totals -> float32, a row's beside each other, whole fours; step: bytes to those of the next row."""
    for _ in range(rows):
        for t in range(0, tokens, 4):
            _store_sums(_totals4(totals + 64 * t, 1), sums + 4 * t)
        totals += _TOTALS_BYTES
        sums += step


@inline
def _add_part_of(tokens, words_of, scales_of, block, part):
    """The totals of so many tokens, at most _MOST, with a part more."""
    if tokens == 8:
        _add_part(_totals8, words_of, scales_of, block, part)
    elif tokens == 7:
        _add_part(_totals7, words_of, scales_of, block, part)
    elif tokens == 6:
        _add_part(_totals6, words_of, scales_of, block, part)
    elif tokens == 5:
        _add_part(_totals5, words_of, scales_of, block, part)
    elif tokens == 4:
        _add_part(_totals4, words_of, scales_of, block, part)
    elif tokens == 3:
        _add_part(_totals3, words_of, scales_of, block, part)
    elif tokens == 2:
        _add_part(_totals2, words_of, scales_of, block, part)
    else:
        _add_part(_totals1, words_of, scales_of, block, part)


@inline
def _add_rows(words_of, scales_of, block, w, rows, blocks, x, count, sums, totals):
    """Rows of so many blocks times `count` tokens, part by part -> _sums_bytes for each at sums."""
    row_bytes = blocks * block.bytes
    for t in range(0, count, _MOST):
        tokens, first = min(count - t, _MOST), 0
        parts = (blocks * tokens + _PART - 1) // _PART
        most = (blocks + parts - 1) // parts
        ahead = 0 if t else max(_AHEAD // (most * block.bytes), 1) * row_bytes  # of rows that come as these do
        while first < blocks:
            some, place = min(most, blocks - first), x + _BLOCK_BYTES * (count * first + t)
            part = _Part(w + first * block.bytes, rows, row_bytes, some, place, count, totals, first, ahead)
            _add_part_of(tokens, words_of, scales_of, block, part)
            first += some
        _sum_up(totals, rows, tokens, sums + 4 * t, _sums_bytes(count))


@inline
def _write(sums, first, rows, step):
    """The results of rows first to first + rows."""
    for t in range(step.count):
        entry, adds = step.entries + ENTRY.bytes * t, 1 if t >= step.added else step.accumulate
        y, factor = load_i64(entry + ENTRY.result) + 4 * first, load_f32(entry + ENTRY.factor)
        for r in range(rows):
            product = factor * load_f32(sums + _sums_bytes(step.count) * r + 4 * t)
            store_f32(y + 4 * r, load_f32(y + 4 * r) + product if adds else product)


@inline
def step_rows_by_16(words_of, scales_of, offset, block, w, rows, columns, step, scratch):
    """step_rows of quant.formats, of types with a scale for 16 columns, whose minimum is `offset` times that.

    words_of(w), scales_of(w): a block in the order told above, four i8x64 and f32x16.
    """
    blocks, count, first = columns // 256, step.count, 0
    sums = scratch + blocks * count * _BLOCK_BYTES
    for t in range(count):
        x = load_i64(step.entries + ENTRY.bytes * t + ENTRY.activation)
        _turn_activation(x, columns, offset, scratch + _BLOCK_BYTES * t, count * _BLOCK_BYTES)
    row_bytes = blocks * block.bytes
    most = min(_ROWS, max(_ROWS_BYTES // row_bytes, _FEWEST_ROWS))
    while first < rows:
        some = min(most, rows - first)
        _add_rows(words_of, scales_of, block, w, some, blocks, scratch, count, sums, sums + _ROWS * _sums_bytes(count))
        _write(sums, first, some, step)
        first += some
        w += some * row_bytes
