"""Rows of weights times a few activation rows, tile by tile: 16 rows are unpacked once for all of them.

As `dot_rows` of the formats adds up (see quant.blocks.totals), bit by bit, but lanes are rows: a token's totals are 9 or 17
vectors in memory, one for each group of 256 columns, and one for what is behind the last 256. So a step of several tokens
gives each what a step of its own would, and each costs its products alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from quant.atomics import call
from quant.formats import TILE_SCRATCH, Format
from quant.int8_dot import UNIT, dot_wide_llvm
from quant.jit import Kernel, function, inline, intrinsic
from quant.kernels.multiply import whole_rows
from quant.kernels.panel_products import TILE_ROWS
from quant.simd import (
    F32,
    I8,
    I32,
    add,
    constant_of,
    load_f32,
    load_f32x16,
    load_i64,
    mul,
    pointer,
    prefetch_l2,
    splat,
    splat_llvm,
    store_f32,
    store_f32x16,
    vector_of,
    zero_f32x16,
)
from quant.tile import ENTRY, entry_llvm, fma_llvm, offset_by
from quant.tile_products import PAIRS, Values, load_word, sum_by_pairs
from quant.weights import MATRIX

_VECTOR = 4 * TILE_ROWS  # bytes of a float32 for each row
# Columns that are unpacked together: with their scales and a token's totals they stay in the first-level cache. And at most,
# so that what is left over is not a part of its own.
_PART, _LAST = 512, 768
# The most tokens whose whole-number sums are in registers together.
_MOST = 8 if UNIT.startswith("avx512") else 3
_MINIMA = _VECTOR * (_LAST // 16)  # bytes from a group's scales to its minima

# multiply_tiles(matrix, w, rows, entries, count, added, accumulate, scratch)
# result[t][0..rows) = factor[t] * (w . x[t]) for each of `count` entries (see quant.tile), added to what is there if accumulate
# is not 0, and from the entry `added` on in any case; w: the first of `rows` rows of a matrix, given by its table.
_multiply = function("p" * 8)


def tiles_scratch_bytes(row_bytes: int, entries: int) -> int:
    """Scratch memory that one call needs for rows of so many bytes, and so many entries."""
    tile = TILE_ROWS * _LAST + 2 * _VECTOR * (_LAST // 16)
    return TILE_SCRATCH + tile + _VECTOR * (17 * entries) + TILE_ROWS * row_bytes


def _sum_by_dots(builder: Any, tile: Any, word_of: Any, steps: int, tokens: int) -> Values:
    """i32x16 sums of so many steps of four columns for each token; few tokens have two sums, since one would wait for itself."""
    ways = 1 if tokens > 4 else 2
    weights = vector_of(I8, 64)
    sums: Values = [constant_of(vector_of(I32, 16), 0)] * (ways * tokens)
    for step in range(steps):
        w = builder.load(pointer(builder, offset_by(builder, tile, 64 * step), weights), align=1)
        for token in range(tokens):
            x = builder.bitcast(splat_llvm(builder, word_of(step, token), 16), weights)
            at = token * ways + step % ways
            sums[at] = dot_wide_llvm(builder, sums[at], w, x)
    return sums if ways == 1 else [builder.add(*sums[2 * token : 2 * token + 2]) for token in range(tokens)]


def _add_group(columns: int, bits: int, least: int, most: int) -> Any:
    """Declare an intrinsic: a group of so many columns is added to one total of each token, in place, of `least` to `most`.

    It takes the number of tokens, the addresses of the group's columns in the tile and of its scales, the entries, the address
    of the first token's total, the number of columns before the group, and that of all columns.
    """
    shift = 3 if columns == 32 else 2  # of a column's number to the offset of its group's float32

    def add(
        builder: Any, tokens: int, tile: Any, scales: Any, entries: Any, total: Any, first: Any, every: Any
    ) -> None:
        rows = [entry_llvm(builder, entries, token, ENTRY.activation, entries.type) for token in range(tokens)]
        places = [builder.add(row, first) for row in rows]

        def word_of(step: int, token: int) -> Any:
            return load_word(builder, places[token], 4 * step)

        def shifted(number: Any, bits: int) -> Any:
            return builder.lshr(number, ir.Constant(number.type, bits))

        if PAIRS and bits:
            sums = sum_by_pairs(builder, tile, word_of, columns // 4, tokens, bits)
        else:
            sums = _sum_by_dots(builder, tile, word_of, columns // 4, tokens)
        d = builder.add(every, builder.shl(shifted(first, 5), ir.Constant(first.type, 2)))
        s = builder.add(builder.add(every, shifted(every, shift)), shifted(first, shift))
        lanes = vector_of(F32, TILE_ROWS)
        places = [pointer(builder, offset_by(builder, scales, at), lanes) for at in (0, _MINIMA)]
        scale, minimum = (builder.load(place, align=1) for place in places)
        less = builder.fneg(minimum)
        for token, (row, whole) in enumerate(zip(rows, sums, strict=True)):
            place = pointer(builder, offset_by(builder, total, token * _totals_bytes(columns)), lanes)
            value = fma_llvm(builder, less, _float(builder, row, s), builder.load(place, align=1))
            factor = builder.fmul(scale, _float(builder, row, d))
            builder.store(fma_llvm(builder, builder.sitofp(whole, lanes), factor, value), place, align=1)

    def generate(builder: Any, tokens: Any, *operands: Any) -> None:
        if least == most:
            return add(builder, most, *operands)
        end = builder.append_basic_block()
        choice = builder.switch(tokens, end)
        for count in range(least, most + 1):
            block = builder.append_basic_block()
            choice.add_case(count, block)
            builder.position_at_end(block)
            add(builder, count, *operands)
            builder.branch(end)
        builder.position_at_end(end)

    return intrinsic(lambda tokens, tile, scales, entries, total, first, every: (None, generate))


def _float(builder: Any, row: Any, offset: Any) -> Any:
    """The float32 that is so far behind an address, in every lane."""
    return splat_llvm(builder, builder.load(pointer(builder, builder.add(row, offset), F32), align=1), TILE_ROWS)


def _totals_bytes(columns: int) -> int:
    """Bytes of a token's totals, for groups of so many columns."""
    return _VECTOR * (256 // columns + 1)


class _Part(NamedTuple):
    """Some columns of a tile, unpacked: addresses of its weights, scales and minima, and of the tokens' totals."""

    weights: Any
    scales: Any
    totals: Any
    first: Any  # of these columns in the rows, a multiple of 256
    columns: Any


class _Ahead(NamedTuple):
    """What is asked for meanwhile: so many bytes for each group, from an address on."""

    address: Any
    bytes: Any


@inline
def _add_groups(add, group, part, entries, tokens, totals, columns, ahead):
    """All groups of a part, for at most _MOST tokens."""
    whole, lanes = columns // 256 * 256, 256 // group
    for g in range(part.columns // group):
        for line in range(0, ahead.bytes, 64):
            prefetch_l2(ahead.address + g * ahead.bytes + line)
        first = part.first + g * group
        total = totals + _VECTOR * (g % lanes if first < whole else lanes)
        add(tokens, part.weights + TILE_ROWS * g * group, part.scales + _VECTOR * g, entries, total, first, columns)


@inline
def _add_part(many, fewer, group, part, entries, count, columns, ahead):
    """A part for all tokens; what is asked for is so with the first of them."""
    size = _VECTOR * (256 // group + 1)
    for t in range(0, count, _MOST):
        tokens, totals = min(count - t, _MOST), part.totals + size * t
        if tokens == _MOST:  # chosen for each group, as fewer are, they would take 3 % more time
            _add_groups(many, group, part, entries + ENTRY.bytes * t, tokens, totals, columns, ahead)
        else:
            _add_groups(fewer, group, part, entries + ENTRY.bytes * t, tokens, totals, columns, ahead)
        ahead = _Ahead(ahead.address, 0)


@inline
def _sum_of(totals, lanes):
    """The sum of a token's totals, f32x16: halves are added until one is left, and what is behind the last 256 columns."""
    half = lanes // 2
    while half:
        for i in range(half):
            place = totals + _VECTOR * i
            store_f32x16(place, add(load_f32x16(place), load_f32x16(place + _VECTOR * half)))
        half //= 2
    return add(load_f32x16(totals), load_f32x16(totals + _VECTOR * lanes))


@inline
def _write(entries, count, added, accumulate, totals, group, r, rows):
    """The results of rows r to r + rows of the matrix."""
    lanes = 256 // group
    for t in range(count):
        entry, adds = entries + ENTRY.bytes * t, 1 if t >= added else accumulate
        y, factor = load_i64(entry + ENTRY.result) + 4 * r, load_f32(entry + ENTRY.factor)
        product = mul(splat(factor), _sum_of(totals + _VECTOR * (lanes + 1) * t, lanes))
        if rows == TILE_ROWS:
            store_f32x16(y, add(load_f32x16(y), product) if adds else product)
        else:
            store_f32x16(totals, product)
            for i in range(rows):
                before = load_f32(y + 4 * i) if adds else np.float32(0)
                store_f32(y + 4 * i, before + load_f32(totals + 4 * i) if adds else load_f32(totals + 4 * i))


@inline
def _clear(totals, vectors):
    for i in range(vectors):
        store_f32x16(totals + _VECTOR * i, zero_f32x16())


@inline
def _multiply_tiles(many, fewer, group, matrix, w, rows, entries, count, added, accumulate, scratch):
    columns, row_bytes = load_i64(matrix + MATRIX.columns), load_i64(matrix + MATRIX.row_bytes)
    unpack, weights = load_i64(matrix + MATRIX.unpack), scratch + TILE_SCRATCH
    scales = weights + TILE_ROWS * _LAST
    totals = scales + 2 * _MINIMA
    vectors = count * (256 // group + 1)
    for r in range(0, rows, TILE_ROWS):
        some_rows, ahead = min(TILE_ROWS, rows - r), w + TILE_ROWS * row_bytes
        v = whole_rows(w, row_bytes, some_rows, totals + _VECTOR * vectors)
        _clear(totals, vectors)
        first = 0
        while first < columns:
            size = _PART if columns - first > _LAST else columns - first
            part = _Part(weights, scales, totals, first, size)
            block = v + first * row_bytes // columns
            call(unpack, (block, row_bytes, size, weights, scales, scales + _MINIMA, scratch))
            each = TILE_ROWS * (row_bytes * group // columns)
            _add_part(many, fewer, group, part, entries, count, columns, _Ahead(ahead, each))
            ahead += each * (size // group)
            first += size
        _write(entries, count, added, accumulate, totals, group, r, some_rows)
        w += TILE_ROWS * row_bytes


def _ways(columns: int, bits: int) -> list[Any]:
    """How a group is added for _MOST tokens, and for fewer."""
    return [_add_group(columns, bits, *some) for some in ((_MOST, _MOST), (1, _MOST - 1))]


_MANY_32, _FEWER_32 = _ways(32, 0)
_MANY_16, _FEWER_16 = _ways(16, 0)
_MANY_U5, _FEWER_U5 = _ways(32, 5)  # where there are no pairs, nobody asks for these
_MANY_U4, _FEWER_U4 = _ways(32, 4)
_MANY_U6_16, _FEWER_U6_16 = _ways(16, 6)
_MANY_U4_16, _FEWER_U4_16 = _ways(16, 4)


@_multiply
def step_q8(matrix, w, rows, entries, count, added, accumulate, scratch):
    """Quantized weights with a scale per 32 columns."""
    _multiply_tiles(_MANY_32, _FEWER_32, 32, matrix, w, rows, entries, count, added, accumulate, scratch)


@_multiply
def step_q8_by_16(matrix, w, rows, entries, count, added, accumulate, scratch):
    """Quantized weights with a scale per 16 columns."""
    _multiply_tiles(_MANY_16, _FEWER_16, 16, matrix, w, rows, entries, count, added, accumulate, scratch)


@_multiply
def step_u5(matrix, w, rows, entries, count, added, accumulate, scratch):
    """As `step_q8`, of 5 bits, on units that leave pairs."""
    _multiply_tiles(_MANY_U5, _FEWER_U5, 32, matrix, w, rows, entries, count, added, accumulate, scratch)


@_multiply
def step_u4(matrix, w, rows, entries, count, added, accumulate, scratch):
    """The same, of at most 4 bits."""
    _multiply_tiles(_MANY_U4, _FEWER_U4, 32, matrix, w, rows, entries, count, added, accumulate, scratch)


@_multiply
def step_u6_by_16(matrix, w, rows, entries, count, added, accumulate, scratch):
    """As `step_q8_by_16`, of 6 bits, on units that leave pairs."""
    _multiply_tiles(_MANY_U6_16, _FEWER_U6_16, 16, matrix, w, rows, entries, count, added, accumulate, scratch)


@_multiply
def step_u4_by_16(matrix, w, rows, entries, count, added, accumulate, scratch):
    """The same, of at most 4 bits."""
    _multiply_tiles(_MANY_U4_16, _FEWER_U4_16, 16, matrix, w, rows, entries, count, added, accumulate, scratch)


_KERNELS = {  # by columns that share a scale, and bits of a weight
    (32, 0): step_q8, (32, 5): step_u5, (32, 4): step_u4,
    (16, 0): step_q8_by_16, (16, 6): step_u6_by_16, (16, 4): step_u4_by_16,
}  # fmt: skip


def step_kernel(weights: Format) -> Kernel | None:
    """The kernel that multiplies tiles of a format as its dot_rows multiplies rows, if there is one."""
    return _KERNELS[weights.group, weights.bits if PAIRS else 0] if weights.by_tiles else None
