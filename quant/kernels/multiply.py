"""A tile of at most 16 weight rows times many tokens: unpacked once, then met by every token while it is cached."""

from __future__ import annotations

import numpy as np

from quant.activation import sums16_of, sums32_of
from quant.atomics import call
from quant.formats import TILE_SCRATCH, Format
from quant.jit import Kernel, function, inline
from quant.kernels.panels import panel_bytes
from quant.simd import load_f32, load_f32x16, load_i64, load_u8, prefetch_l2, store_f32, store_i64, store_u8
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
_PART = 512  # columns: 8 KiB of int8 and 2 to 4 KiB of scales, beside 6 KiB of a panel
_LAST = 768  # at most, so that what is left over is not a part of its own
_LOCAL_BYTES = -(-MANY * (ENTRY_BYTES + 64) // 64) * 64

# multiply(unpack, w, row_bytes, rows, columns, group, table, panels, rest, tokens, offset, accumulate, scratch)
# result[t][0..rows) = factor[t] * (w . x[t]), `offset` bytes into each token's result. x[t] stands in the panels, and what
# it leaves in those of `rest` unless that is 0, for quantized weights; in the table for others. See quant.tile.
_multiply = function("p" * 13)


def scratch_bytes(columns: int) -> int:
    """Scratch memory that one call needs for rows of that many columns, whatever the format."""
    floats = 4 * ROWS * columns  # a tile of float32 weights
    quantized = ROWS * _LAST + 2 * 4 * ROWS * (_LAST // 16)  # a tile of int8, its scales and its minima
    whole_rows = 4 * ROWS * columns  # of an incomplete tile; float32 at most
    return _LOCAL_BYTES + TILE_SCRATCH + max(floats, quantized) + whole_rows


def multiply_kernel(weights: Format) -> Kernel:
    """The kernel that multiplies tiles of a format."""
    return {0: multiply_f32, 16: multiply_q8_by_16, 32: multiply_q8}[weights.group]


@inline
def set_entry(table, token, x, y, factor):
    """Fill one entry of a token table."""
    entry = table + token * ENTRY_BYTES
    store_i64(entry, x)
    store_i64(entry + 8, y)
    store_f32(entry + 16, factor)


@inline
def pad_table(table, tokens, x, spare):
    """Fill a table of `tokens` entries up to whole tiles: x may be read, and `spare` written like any result."""
    for t in range(tokens, (tokens + MANY - 1) // MANY * MANY):
        set_entry(table, t, x, spare, np.float32(0))


@inline
def table_bytes(tokens):
    """Bytes of a table of up to so many tokens, with what `pad_table` adds."""
    return (tokens + MANY) * ENTRY_BYTES


@inline
def _to_spare(table, local):
    """Copy MANY entries, with results in a spare place behind the copies."""
    for i in range(MANY):
        entry = table + i * ENTRY_BYTES
        set_entry(local, i, load_i64(entry), local + MANY * ENTRY_BYTES + 64 * i, load_f32(entry + 16))


@inline
def _from_spare(table, count, rows, offset, accumulate, local):
    """Copy the rows of an incomplete tile from the spare place."""
    for i in range(count):
        y = load_i64(table + i * ENTRY_BYTES + 8) + offset
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
def _meet_q8(totals, none, tile, scales, minima, x, d, s, entries, columns, group, at, adds, ahead, row_bytes, step):
    """Write the products of a tile's columns with the tokens of `entries`, `at` bytes into their results.

    x, d and s: where these columns begin in a panel; `none` is no sum of each token. Meanwhile `step` bytes of each of
    the 16 rows from `ahead` on are fetched: what is unpacked next.
    """
    groups = columns // group
    for g in range(groups):
        row = ahead + g * ROWS // groups * row_bytes
        for line in range(0, step, 64):
            prefetch_l2(row + line)
        products = none
        for c in range(g * group, (g + 1) * group, 16):
            products = dot_columns(products, tile + ROWS * c, x + MANY * c)
        a, b = load_f32x16(scales + 64 * g), load_f32x16(minima + 64 * g)
        totals = scale_columns(totals, products, a, b, d + 4 * MANY * (g * group // 32), s + 4 * MANY * g)
    write_totals(totals, entries, at, adds)


@inline
def _meet_panels(
    tile, scales, minima, panels, table, tokens, rows, columns, part, column, group, offset, accumulate, ahead, row_bytes,
    step, local,
):  # fmt: skip
    """Columns `column` to column + part of a tile meet every token, MANY at a time."""
    sums = sums32_of(0, columns) if group == 32 else sums16_of(0, columns)
    for first in range(0, tokens, MANY):
        panel = panels + first // MANY * panel_bytes(columns)
        x, d = panel + MANY * column, panel + MANY * (columns + column // 8)
        s = panel + MANY * (sums + column // group * 4)
        count, entries, at, keeps = min(MANY, tokens - first), table + first * ENTRY_BYTES, offset, accumulate
        if rows < ROWS:
            _to_spare(entries, local)
            entries, at, keeps = local, 0, 0
        if count > SOME:
            totals, none = many_totals(), many_sums()
            _meet_q8(
                totals, none, tile, scales, minima, x, d, s, entries, part, group, at, keeps, ahead, row_bytes, step
            )  # fmt: skip
        elif count > FEW:
            fewer, nothing = some_totals(), some_sums()
            _meet_q8(
                fewer, nothing, tile, scales, minima, x, d, s, entries, part, group, at, keeps, ahead, row_bytes, step
            )  # fmt: skip
        else:
            least, zero = few_totals(), few_sums()
            _meet_q8(
                least, zero, tile, scales, minima, x, d, s, entries, part, group, at, keeps, ahead, row_bytes, step
            )  # fmt: skip
        if rows < ROWS:
            _from_spare(table + first * ENTRY_BYTES, count, rows, offset, accumulate, local)
        step = 0


@inline
def _meet_f32(totals, tile, entries, columns, at, adds):
    for c in range(columns):
        totals = fma_column(totals, load_f32x16(tile + 4 * ROWS * c), entries, 4 * c)
    write_totals(totals, entries, at, adds)


@inline
def _multiply_q8(unpack, w, row_bytes, rows, columns, group, table, panels, rest, tokens, offset, accumulate, scratch):
    """Quantized weights by panels, _PART columns at a time: their tile stays in the first-level cache for all tokens."""
    local, memory = scratch, scratch + _LOCAL_BYTES
    tile = memory + TILE_SCRATCH
    scales = tile + ROWS * _LAST
    minima = scales + 4 * ROWS * (_LAST // 16)
    after = w + ROWS * row_bytes
    w = _whole_rows(w, row_bytes, rows, minima + 4 * ROWS * (_LAST // 16))
    column = 0
    while column < columns:
        part = _PART if columns - column > _LAST else columns - column
        last = column + part == columns
        ahead = after if last else w + (column + part) * row_bytes // columns
        call(unpack, (w + column * row_bytes // columns, row_bytes, part, tile, scales, minima, memory))
        adds = 1 if column else accumulate
        step = part * row_bytes // columns
        _meet_panels(
            tile, scales, minima, panels, table, tokens, rows, columns, part, column, group, offset, adds, ahead, row_bytes,
            step, local,
        )  # fmt: skip
        if rest:
            _meet_panels(
                tile, scales, minima, rest, table, tokens, rows, columns, part, column, group, offset, 1, ahead, row_bytes,
                0, local,
            )  # fmt: skip
        column += part


@_multiply
def multiply_q8(unpack, w, row_bytes, rows, columns, group, table, panels, rest, tokens, offset, accumulate, scratch):
    """Quantized weights with a scale per 32 columns."""
    _multiply_q8(unpack, w, row_bytes, rows, columns, 32, table, panels, rest, tokens, offset, accumulate, scratch)


@_multiply
def multiply_q8_by_16(
    unpack, w, row_bytes, rows, columns, group, table, panels, rest, tokens, offset, accumulate, scratch
):
    """Quantized weights with a scale per 16 columns."""
    _multiply_q8(unpack, w, row_bytes, rows, columns, 16, table, panels, rest, tokens, offset, accumulate, scratch)


@_multiply
def multiply_f32(unpack, w, row_bytes, rows, columns, group, table, panels, rest, tokens, offset, accumulate, scratch):
    """Float weights by 'f32' activations."""
    local, memory = scratch, scratch + _LOCAL_BYTES
    tile = memory + TILE_SCRATCH
    w = _whole_rows(w, row_bytes, rows, tile + 4 * ROWS * columns)
    call(unpack, (w, row_bytes, columns, tile, 0, 0, memory))
    for first in range(0, tokens, MANY):
        entries, at, keeps = table + first * ENTRY_BYTES, offset, accumulate
        if rows < ROWS:
            _to_spare(entries, local)
            entries, at, keeps = local, 0, 0
        _meet_f32(many_totals(), tile, entries, columns, at, keeps)
        if rows < ROWS:
            _from_spare(table + first * ENTRY_BYTES, min(MANY, tokens - first), rows, offset, accumulate, local)
