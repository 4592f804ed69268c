"""A tile of at most 16 weight rows times many tokens: unpacked once, then multiplied with all of them while it is cached."""

from __future__ import annotations

import numpy as np

from quant.atomics import call
from quant.formats import TILE_SCRATCH, Format
from quant.jit import Kernel, function, inline
from quant.kernels.panel_products import (
    TILE_ROWS,
    Ahead,
    Results,
    Tile,
    by_dots,
    by_matrices_16,
    by_matrices_32,
    by_u4,
    by_u4_16,
    by_u5,
    by_u6_16,
)
from quant.kernels.panels import panel_bytes
from quant.plan import Operand
from quant.simd import load_f32, load_f32x16, load_i64, load_u8, store_f32, store_i64, store_u8
from quant.tile import (
    ENTRY,
    MANY,
    fma_column,
    many_totals,
    write_totals,
)
from quant.tile_products import MATRICES, PAIRS, interleave
from quant.weights import MATRIX, ExpertMatrices, Matrix, operands_of

_PART = 512  # columns: 8 KiB of int8 and 2 to 4 KiB of scales, beside 6 KiB of a panel
_LAST = 768  # at most, so that what is left over is not a part of its own
_BY_32, _BY_16 = (by_matrices_32, by_matrices_16) if MATRICES else (by_dots, by_dots)
_BY_U5, _BY_U4 = (by_u5, by_u4) if PAIRS else (_BY_32, _BY_32)  # where there are no pairs, nobody asks for them
_BY_U6_16, _BY_U4_16 = (by_u6_16, by_u4_16) if PAIRS else (_BY_16, _BY_16)
_LOCAL_BYTES = -(-MANY * (ENTRY.bytes + 4 * TILE_ROWS) // 64) * 64

# multiply(matrix, w, rows, entries, panels, residual, tokens, offset, accumulate, scratch)
# result[t][0..rows) = factor[t] * (w . x[t]), `offset` bytes into each token's result; w: the first of `rows` rows of a
# matrix, given by its table. x[t] stands in the panels, and its residual in those of `residual` unless that is 0, for
# quantized weights; for float weights it is found through the entries. See quant.tile.
_multiply = function("p" * 10)


def scratch_bytes(columns: int) -> int:
    """Scratch memory that one call needs for rows of that many columns, whatever the format."""
    floats = 4 * TILE_ROWS * columns  # a tile of float32 weights
    quantized = TILE_ROWS * _LAST + 2 * 4 * TILE_ROWS * (_LAST // 16)  # a tile of int8, its scales and its minima
    whole_rows = 4 * TILE_ROWS * columns  # of an incomplete tile; float32 at most
    return _LOCAL_BYTES + TILE_SCRATCH + max(floats, quantized) + whole_rows


def multiply_kernel(weights: Format) -> Kernel:
    """The kernel that multiplies tiles of a format."""
    if weights.group == 0:
        return multiply_f32
    return _MULTIPLY[weights.group, weights.bits if PAIRS else 0]


def tile_operands(weights: Matrix | ExpertMatrices) -> dict[str, Operand]:
    """Fields of MATRIX for kernels that multiply tiles, and single rows."""
    kind = weights.format
    return operands_of(weights, unpack=kind.unpack_tile, multiply=multiply_kernel(kind))


@inline
def set_entry(entries, token, x, y, factor):
    """Fill one token's entry."""
    entry = entries + token * ENTRY.bytes
    store_i64(entry + ENTRY.activation, x)
    store_i64(entry + ENTRY.result, y)
    store_f32(entry + ENTRY.factor, factor)


@inline
def pad_entries(entries, tokens, x, unused):
    """Fill up the entries of `tokens` to whole panels: x will be read, and `unused` written like any result."""
    for t in range(tokens, (tokens + MANY - 1) // MANY * MANY):
        set_entry(entries, t, x, unused, np.float32(0))


@inline
def entries_bytes(tokens):
    """Bytes of the entries of up to so many tokens, with those that `pad_entries` adds."""
    return (tokens + MANY) * ENTRY.bytes


@inline
def _copy_entries(entries, local):
    """Copy MANY entries, with results in memory behind the copies: 16 rows may be written there, if fewer are wanted."""
    for i in range(MANY):
        entry, result = entries + i * ENTRY.bytes, local + MANY * ENTRY.bytes + 4 * TILE_ROWS * i
        set_entry(local, i, load_i64(entry + ENTRY.activation), result, load_f32(entry + ENTRY.factor))


@inline
def _copy_results(results, first, local):
    """Copy the rows of an incomplete tile, for MANY tokens from `first` on, from behind the copied entries."""
    for i in range(min(MANY, results.tokens - first)):
        y = load_i64(results.entries + (first + i) * ENTRY.bytes + ENTRY.result) + results.offset
        found = local + MANY * ENTRY.bytes + 4 * TILE_ROWS * i
        for r in range(results.rows):
            before = load_f32(y + 4 * r) if results.accumulate else np.float32(0)
            store_f32(y + 4 * r, before + load_f32(found + 4 * r))


@inline
def whole_rows(w, row_bytes, rows, copy):
    """The address of 16 rows: the weights' own, or a copy of an incomplete tile that may be read to its end."""
    if rows == TILE_ROWS:
        return w
    for i in range(rows * row_bytes):
        store_u8(copy + i, load_u8(w + i))
    return copy


@inline
def _multiply_panels(products, tile, panels, columns, results, ahead, local):
    """Write the products of a tile and every token, MANY at a time; products: `by_dots` or one of those behind it."""
    count = ahead.count
    for first in range(0, results.tokens, MANY):
        panel, tokens = panels + first // MANY * panel_bytes(columns), min(MANY, results.tokens - first)
        entries, offset, accumulate = results.entries + first * ENTRY.bytes, results.offset, results.accumulate
        if results.rows < TILE_ROWS:
            _copy_entries(entries, local)
            entries, offset, accumulate = local, 0, 0
        these = Results(entries, tokens, TILE_ROWS, offset, accumulate)
        after = Ahead(ahead.address, ahead.row_bytes, count)
        products(tile, panel, columns, these, after)
        if results.rows < TILE_ROWS:
            _copy_results(results, first, local)
        count = 0


@inline
def _multiply_q8(products, matrix, group, w, panels, residual, results, scratch):
    """Quantized weights by panels, _PART columns at a time: their tile stays in the first-level cache for all tokens."""
    columns, row_bytes = load_i64(matrix + MATRIX.columns), load_i64(matrix + MATRIX.row_bytes)
    unpack = load_i64(matrix + MATRIX.unpack)
    local, memory = scratch, scratch + _LOCAL_BYTES
    weights = memory + TILE_SCRATCH
    scales = weights + TILE_ROWS * _LAST
    minima = scales + 4 * TILE_ROWS * (_LAST // 16)
    next_tile = w + TILE_ROWS * row_bytes
    w = whole_rows(w, row_bytes, results.rows, minima + 4 * TILE_ROWS * (_LAST // 16))
    first = 0
    while first < columns:
        part = _PART if columns - first > _LAST else columns - first
        next_part = next_tile if first + part == columns else w + (first + part) * row_bytes // columns
        call(unpack, (w + first * row_bytes // columns, row_bytes, part, weights, scales, minima, memory))
        if MATRICES:
            for c in range(0, part, 8):
                interleave(weights + TILE_ROWS * c)
        tile = Tile(weights, scales, minima, first, part, group)
        sums = Results(
            results.entries, results.tokens, results.rows, results.offset, 1 if first else results.accumulate
        )
        _multiply_panels(
            products, tile, panels, columns, sums, Ahead(next_part, row_bytes, part * row_bytes // columns), local
        )
        if residual:
            more = Results(results.entries, results.tokens, results.rows, results.offset, 1)
            _multiply_panels(products, tile, residual, columns, more, Ahead(next_part, row_bytes, 0), local)
        first += part


@_multiply
def multiply_q8(matrix, w, rows, entries, panels, residual, tokens, offset, accumulate, scratch):
    """Quantized weights with a scale per 32 columns."""
    results = Results(entries, tokens, rows, offset, accumulate)
    _multiply_q8(_BY_32, matrix, 32, w, panels, residual, results, scratch)


@_multiply
def multiply_q8_by_16(matrix, w, rows, entries, panels, residual, tokens, offset, accumulate, scratch):
    """Quantized weights with a scale per 16 columns."""
    results = Results(entries, tokens, rows, offset, accumulate)
    _multiply_q8(_BY_16, matrix, 16, w, panels, residual, results, scratch)


@_multiply
def multiply_u5(matrix, w, rows, entries, panels, residual, tokens, offset, accumulate, scratch):
    """As `multiply_q8`, of 5 bits, on units that leave pairs."""
    results = Results(entries, tokens, rows, offset, accumulate)
    _multiply_q8(_BY_U5, matrix, 32, w, panels, residual, results, scratch)


@_multiply
def multiply_u4(matrix, w, rows, entries, panels, residual, tokens, offset, accumulate, scratch):
    """The same, of at most 4 bits."""
    results = Results(entries, tokens, rows, offset, accumulate)
    _multiply_q8(_BY_U4, matrix, 32, w, panels, residual, results, scratch)


@_multiply
def multiply_u6_by_16(matrix, w, rows, entries, panels, residual, tokens, offset, accumulate, scratch):
    """As `multiply_q8_by_16`, of 6 bits, on units that leave pairs."""
    results = Results(entries, tokens, rows, offset, accumulate)
    _multiply_q8(_BY_U6_16, matrix, 16, w, panels, residual, results, scratch)


@_multiply
def multiply_u4_by_16(matrix, w, rows, entries, panels, residual, tokens, offset, accumulate, scratch):
    """The same, of at most 4 bits."""
    results = Results(entries, tokens, rows, offset, accumulate)
    _multiply_q8(_BY_U4_16, matrix, 16, w, panels, residual, results, scratch)


@inline
def _multiply_floats(totals, tile, columns, results):
    """Write the products of a float32 tile and MANY tokens."""
    for c in range(columns):
        totals = fma_column(totals, load_f32x16(tile + 4 * TILE_ROWS * c), results.entries, 4 * c)
    write_totals(totals, results.entries, results.offset, results.accumulate)


@_multiply
def multiply_f32(matrix, w, rows, entries, panels, residual, tokens, offset, accumulate, scratch):
    """Float weights by 'f32' activations."""
    columns, row_bytes = load_i64(matrix + MATRIX.columns), load_i64(matrix + MATRIX.row_bytes)
    results = Results(entries, tokens, rows, offset, accumulate)
    local, memory = scratch, scratch + _LOCAL_BYTES
    tile = memory + TILE_SCRATCH
    w = whole_rows(w, row_bytes, rows, tile + 4 * TILE_ROWS * columns)
    call(load_i64(matrix + MATRIX.unpack), (w, row_bytes, columns, tile, 0, 0, memory))
    for first in range(0, tokens, MANY):
        these, at, keeps = entries + first * ENTRY.bytes, offset, accumulate
        if rows < TILE_ROWS:
            _copy_entries(these, local)
            these, at, keeps = local, 0, 0
        _multiply_floats(many_totals(), tile, columns, Results(these, MANY, TILE_ROWS, at, keeps))
        if rows < TILE_ROWS:
            _copy_results(results, first, local)


_MULTIPLY = {  # by columns that share a scale, and bits of a weight
    (32, 0): multiply_q8, (32, 5): multiply_u5, (32, 4): multiply_u4,
    (16, 0): multiply_q8_by_16, (16, 6): multiply_u6_by_16, (16, 4): multiply_u4_by_16,
}  # fmt: skip
