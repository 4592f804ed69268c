"""A tile of at most 16 weight rows times many tokens: unpacked once, then met by every token while it is cached."""

from __future__ import annotations

import numpy as np

from quant.activation import sums16_of, sums32_of
from quant.atomics import call
from quant.formats import TILE_SCRATCH, Format
from quant.jit import Kernel, function, inline
from quant.simd import load_f32, load_f32x16, load_i64, load_u8, store_f32, store_i64, store_u8
from quant.tile import (
    ENTRY_BYTES,
    FEW,
    MANY,
    SOME,
    dot_columns,
    few_sums,
    few_totals,
    fma_column,
    many_sums,
    many_totals,
    scale_columns,
    some_sums,
    some_totals,
    write_totals,
)

ROWS = 16
_LOCAL_BYTES = -(-MANY * (ENTRY_BYTES + 64) // 64) * 64

# multiply(unpack, w, row_bytes, rows, columns, group, table, tokens, offset, accumulate, scratch)
# result[t][0..rows) = factor[t] * (w . x[t]), `offset` bytes into each token's result; see quant.tile for the table.
_multiply = function("p" * 11)


def scratch_bytes(columns: int) -> int:
    """Scratch memory that one call needs for rows of that many columns, whatever the format."""
    whole_rows = 4 * ROWS * columns  # of an incomplete tile; float32 at most
    tile = 4 * ROWS * columns  # float32 at most; int8 leaves room for the scales of every 16 columns
    return _LOCAL_BYTES + TILE_SCRATCH + tile + whole_rows


def multiply_kernel(weights: Format) -> Kernel:
    """The kernel that multiplies tiles of a format."""
    return multiply_f32 if weights.activation == "f32" else multiply_q8


@inline
def set_entry(table, token, x, y, factor):
    """Fill one entry of a token table."""
    entry = table + token * ENTRY_BYTES
    store_i64(entry, x)
    store_i64(entry + 8, y)
    store_f32(entry + 16, factor)


@inline
def _gather(table, first, tokens, count, rows, offset, local):
    """Copy `count` entries; what must not be written over goes to a spare result behind the local table."""
    for i in range(count):
        entry = table + min(first + i, tokens - 1) * ENTRY_BYTES
        spare = first + i >= tokens or rows < ROWS
        y = local + MANY * ENTRY_BYTES + 64 * i if spare else load_i64(entry + 8) + offset
        set_entry(local, i, load_i64(entry), y, load_f32(entry + 16))


@inline
def _scatter(table, first, count, rows, offset, accumulate, local):
    """Copy the rows of an incomplete tile from the spare results."""
    for i in range(count):
        y = load_i64(table + (first + i) * ENTRY_BYTES + 8) + offset
        spare = local + MANY * ENTRY_BYTES + 64 * i
        for r in range(rows):
            before = load_f32(y + 4 * r) if accumulate else np.float32(0)
            store_f32(y + 4 * r, before + load_f32(spare + 4 * r))


@inline
def _whole_rows(w, row_bytes, rows, copy):
    """The address of 16 rows: the weights' own, or a copy of an incomplete tile that may be read to its end."""
    if rows == ROWS:
        return w
    for i in range(rows * row_bytes):
        store_u8(copy + i, load_u8(w + i))
    return copy


@inline
def _tokens_of_tile(left):
    """How many of the tokens that are left go into the next tile: 12, 8 or 4 with the fewest places unused."""
    if left > SOME and (left <= MANY or left > 2 * SOME):
        return MANY
    return SOME if left > FEW else FEW


@inline
def _meet_q8(totals, none, tile, scales, minima, local, columns, group, sums_offset, adds):
    """Write the products of a tile with the tokens of `local`; `none` is no sum of each token."""
    for g in range(columns // group):
        sums = none
        for c in range(g * group, (g + 1) * group, 16):
            sums = dot_columns(sums, tile + ROWS * c, local, c)
        a, b = load_f32x16(scales + 64 * g), load_f32x16(minima + 64 * g)
        totals = scale_columns(totals, sums, a, b, local, columns + g * group // 32 * 4, sums_offset + 4 * g)
    write_totals(totals, local, adds)


@inline
def _meet_f32(totals, tile, local, columns, adds):
    for c in range(columns):
        totals = fma_column(totals, load_f32x16(tile + 4 * ROWS * c), local, 4 * c)
    write_totals(totals, local, adds)


@_multiply
def multiply_q8(unpack, w, row_bytes, rows, columns, group, table, tokens, offset, accumulate, scratch):
    """Quantized weights by 'q8' activations."""
    local, memory = scratch, scratch + _LOCAL_BYTES
    tile = memory + TILE_SCRATCH
    scales = tile + ROWS * columns
    minima = scales + 4 * ROWS * (columns // group)
    w = _whole_rows(w, row_bytes, rows, minima + 4 * ROWS * (columns // group))
    call(unpack, (w, row_bytes, columns, tile, scales, minima, memory))
    sums = sums32_of(0, columns) if group == 32 else sums16_of(0, columns)
    adds = accumulate if rows == ROWS else 0
    first = 0
    while first < tokens:
        count = _tokens_of_tile(tokens - first)
        _gather(table, first, tokens, count, rows, offset, local)
        if count == MANY:
            _meet_q8(many_totals(), many_sums(), tile, scales, minima, local, columns, group, sums, adds)
        elif count == SOME:
            _meet_q8(some_totals(), some_sums(), tile, scales, minima, local, columns, group, sums, adds)
        else:
            _meet_q8(few_totals(), few_sums(), tile, scales, minima, local, columns, group, sums, adds)
        if rows < ROWS:
            _scatter(table, first, min(count, tokens - first), rows, offset, accumulate, local)
        first += count


@_multiply
def multiply_f32(unpack, w, row_bytes, rows, columns, group, table, tokens, offset, accumulate, scratch):
    """Float weights by 'f32' activations."""
    local, memory = scratch, scratch + _LOCAL_BYTES
    tile = memory + TILE_SCRATCH
    w = _whole_rows(w, row_bytes, rows, tile + 4 * ROWS * columns)
    call(unpack, (w, row_bytes, columns, tile, 0, 0, memory))
    for first in range(0, tokens, SOME):
        _gather(table, first, tokens, SOME, rows, offset, local)
        _meet_f32(some_totals(), tile, local, columns, accumulate if rows == ROWS else 0)
        if rows < ROWS:
            _scatter(table, first, min(SOME, tokens - first), rows, offset, accumulate, local)
