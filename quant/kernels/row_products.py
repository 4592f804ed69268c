"""Rows of weights times one activation row or a few, for steps: tile by tile, each unpacked once for all of them.

A product is made of the same sums in the same order whatever is multiplied beside it: a group of columns after the other,
as whole numbers within the group. So a step of several tokens gives each what a step of its own would, and a step of one
costs what unpacking does.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from quant.atomics import call
from quant.formats import TILE_SCRATCH, Format
from quant.jit import Kernel, function, inline, intrinsic
from quant.plan import Operand
from quant.simd import (
    I64,
    store_i64,
    pointer,
    add,
    load_f32,
    load_f32x16,
    load_i64,
    load_u8,
    mul,
    prefetch,
    prefetch_l2,
    splat,
    store_f32,
    store_f32x16,
    store_u8,
    zero_f32x16,
)
from quant.tile import ENTRY
from quant.tile_products import PAIRS, STEP_MANY, STEP_SOME, add_rows, load_totals, store_totals
from quant.weights import MATRIX, ExpertMatrices, Matrix, operands_of

TILE_ROWS = 16
_PART = 512  # columns that are unpacked together
_LAST = 768  # at most
_VECTOR = 4 * TILE_ROWS

# multiply_rows(matrix, w, rows, entries, count, accumulate, scratch)
_multiply = function("p" * 7)


def rows_scratch_bytes(columns: int, count: int) -> int:
    """Scratch memory that one call needs for rows of that many columns and so many activation rows."""
    tile = TILE_ROWS * _LAST + 2 * _VECTOR * (_LAST // 16)
    return TILE_SCRATCH + tile + _VECTOR * count + 4 * TILE_ROWS * columns


@inline
def _whole(w, row_bytes, rows, copy):
    if rows == TILE_ROWS:
        return w
    for i in range(rows * row_bytes):
        store_u8(copy + i, load_u8(w + i))
    return copy


class Ahead(NamedTuple):
    """What is read next."""

    address: Any
    size: Any
    part: Any
    row_bytes: Any
    count: Any


@intrinsic
def touch(address: Any) -> Any:
    def generate(builder: Any, address: Any) -> None:
        builder.load_atomic(pointer(builder, address, I64), "monotonic", 8)

    return None, generate


VARIANT = int(os.environ.get("VARIANT", "0"))


@inline
def _fetch(ahead, g, groups, size):
    if size:
        if VARIANT == 0 or VARIANT == 11 or VARIANT == 21:
            for line in range(0, size, 64):
                prefetch_l2(ahead.address + g * size + line)
        elif VARIANT == 4 or VARIANT == 10:
            for line in range(0, size, 64):
                touch(ahead.address + g * size + line)
        elif VARIANT == 5:
            for line in range(0, size, 64):
                touch(ahead.address + g * size + line)
                prefetch_l2(ahead.address + g * size + line + 2048)
        elif VARIANT == 6:
            for line in range(0, size, 64):
                touch(ahead.address + g * size + line)
                prefetch(ahead.address + g * size + line + 4096)
        elif VARIANT == 1:
            for line in range(0, size, 64):
                prefetch(ahead.address + g * size + line)
        elif VARIANT == 2:
            row = ahead.part + g * TILE_ROWS // groups * ahead.row_bytes
            for line in range(0, ahead.count, 64):
                prefetch(row + line)
        elif VARIANT == 3:
            row = ahead.part + g * TILE_ROWS // groups * ahead.row_bytes
            for line in range(0, ahead.count, 64):
                prefetch_l2(row + line)


@inline
def _groups(add_many, add_some, add_one, group, columns, first, part, entries, count, place, tile, scales, minima, ahead):
    groups, size = part // group, ahead.size
    t = 0
    while t < count:
        left, at, these = count - t, place + _VECTOR * t, entries + ENTRY.bytes * t
        if left >= STEP_MANY:
            many = load_totals(at, STEP_MANY)
            for g in range(groups):
                c = first + g * group
                _fetch(ahead, g, groups, size)
                a, b = load_f32x16(scales + 64 * g), load_f32x16(minima + 64 * g)
                many = add_many(many, tile + TILE_ROWS * g * group, these, c, columns, a, b)
            store_totals(many, at)
            t += STEP_MANY
            size = 0
        elif left >= STEP_SOME:
            some = load_totals(at, STEP_SOME)
            for g in range(groups):
                c = first + g * group
                _fetch(ahead, g, groups, size)
                a, b = load_f32x16(scales + 64 * g), load_f32x16(minima + 64 * g)
                some = add_some(some, tile + TILE_ROWS * g * group, these, c, columns, a, b)
            store_totals(some, at)
            t += STEP_SOME
            size = 0
        else:
            one = load_totals(at, 1)
            for g in range(groups):
                c = first + g * group
                _fetch(ahead, g, groups, size)
                a, b = load_f32x16(scales + 64 * g), load_f32x16(minima + 64 * g)
                one = add_one(one, tile + TILE_ROWS * g * group, these, c, columns, a, b)
            store_totals(one, at)
            t += 1
            size = 0


@inline
def _write(entries, count, place, r, rows, accumulate):
    for t in range(count):
        entry = entries + ENTRY.bytes * t
        y, factor, totals = load_i64(entry + ENTRY.result) + 4 * r, load_f32(entry + ENTRY.factor), place + _VECTOR * t
        if rows == TILE_ROWS:
            product = mul(splat(factor), load_f32x16(totals))
            store_f32x16(y, add(load_f32x16(y), product) if accumulate else product)
        else:
            for i in range(rows):
                product1 = factor * load_f32(totals + 4 * i)
                store_f32(y + 4 * i, load_f32(y + 4 * i) + product1 if accumulate else product1)


@inline
def _tiles(add_many, add_some, add_one, group, matrix, w, rows, entries, count, accumulate, scratch):
    columns, row_bytes = load_i64(matrix + MATRIX.columns), load_i64(matrix + MATRIX.row_bytes)
    unpack = load_i64(matrix + MATRIX.unpack)
    tile = scratch + TILE_SCRATCH
    scales = tile + TILE_ROWS * _LAST
    minima = scales + _VECTOR * (_LAST // 16)
    place = minima + _VECTOR * (_LAST // 16)
    copy = place + _VECTOR * count
    scratch_weights = w
    for r in range(0, rows, TILE_ROWS):
        some = min(TILE_ROWS, rows - r)
        ahead = w + TILE_ROWS * row_bytes
        v = _whole(w, row_bytes, some, copy)
        for t in range(count):
            store_f32x16(place + _VECTOR * t, zero_f32x16())
        first = 0
        while first < columns:
            part = _PART if columns - first > _LAST else columns - first
            if VARIANT == 10 or VARIANT == 11:
                v = scratch_weights
            half = TILE_ROWS * (part * row_bytes // columns)
            if VARIANT == 20:  # all in unpack
                store_i64(scratch, ahead)
                store_i64(scratch + 8, half // 16)
            elif VARIANT == 21:
                store_i64(scratch, ahead)
                store_i64(scratch + 8, half // 32)
                ahead += half // 2
            else:
                store_i64(scratch, 0)
                store_i64(scratch + 8, 0)
            call(unpack, (v + first * row_bytes // columns, row_bytes, part, tile, scales, minima, scratch))
            size = half
            if VARIANT == 20:
                size = 0
            elif VARIANT == 21:
                size = half // 2
            next_part = w + (first + part) * row_bytes // columns if first + part < columns else w + TILE_ROWS * row_bytes
            _groups(
                add_many, add_some, add_one, group, columns, first, part, entries, count, place, tile, scales, minima, Ahead(ahead, size * group // part, next_part, row_bytes, part * row_bytes // columns)
            )
            ahead += half if VARIANT == 20 else size
            first += part
        _write(entries, count, place, r, some, accumulate)
        w += TILE_ROWS * row_bytes


_M32, _S32, _O32 = (add_rows(32, n, 0) for n in (STEP_MANY, STEP_SOME, 1))
_M16, _S16, _O16 = (add_rows(16, n, 0) for n in (STEP_MANY, STEP_SOME, 1))
_M4, _S4, _O4 = (add_rows(32, n, 4) for n in (STEP_MANY, STEP_SOME, 1))
_M5, _S5, _O5 = (add_rows(32, n, 5) for n in (STEP_MANY, STEP_SOME, 1))
_M6, _S6, _O6 = (add_rows(16, n, 6) for n in (STEP_MANY, STEP_SOME, 1))
_M416, _S416, _O416 = (add_rows(16, n, 4) for n in (STEP_MANY, STEP_SOME, 1))


@_multiply
def rows_q8(matrix, w, rows, entries, count, accumulate, scratch):
    """Quantized weights with a scale per 32 columns."""
    _tiles(_M32, _S32, _O32, 32, matrix, w, rows, entries, count, accumulate, scratch)


@_multiply
def rows_q8_by_16(matrix, w, rows, entries, count, accumulate, scratch):
    """Quantized weights with a scale per 16 columns."""
    _tiles(_M16, _S16, _O16, 16, matrix, w, rows, entries, count, accumulate, scratch)


@_multiply
def rows_u4(matrix, w, rows, entries, count, accumulate, scratch):
    """As `rows_q8`, of 4 bits, on units that leave pairs."""
    _tiles(_M4, _S4, _O4, 32, matrix, w, rows, entries, count, accumulate, scratch)


@_multiply
def rows_u5(matrix, w, rows, entries, count, accumulate, scratch):
    """As `rows_q8`, of 5 bits, on units that leave pairs."""
    _tiles(_M5, _S5, _O5, 32, matrix, w, rows, entries, count, accumulate, scratch)


@_multiply
def rows_u6_by_16(matrix, w, rows, entries, count, accumulate, scratch):
    """As `rows_q8_by_16`, of 6 bits, on units that leave pairs."""
    _tiles(_M6, _S6, _O6, 16, matrix, w, rows, entries, count, accumulate, scratch)


@_multiply
def rows_u4_by_16(matrix, w, rows, entries, count, accumulate, scratch):
    """As `rows_q8_by_16`, of 4 bits, on units that leave pairs."""
    _tiles(_M416, _S416, _O416, 16, matrix, w, rows, entries, count, accumulate, scratch)


ROWS = {
    (32, 0): rows_q8, (32, 5): rows_u5, (32, 4): rows_u4,
    (16, 0): rows_q8_by_16, (16, 6): rows_u6_by_16, (16, 4): rows_u4_by_16,
}  # fmt: skip


def rows_kernel(weights: Format) -> Kernel:
    return ROWS[weights.group, weights.bits if PAIRS else 0]
