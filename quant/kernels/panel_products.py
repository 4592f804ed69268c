"""The products of a tile of 16 weight rows, unpacked, and one panel of tokens.

Operands that belong together travel as named tuples, which compiled code takes apart again: they cost nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from quant.activation import sums16_of, sums32_of
from quant.jit import inline
from quant.simd import load_f32x16, prefetch_l2
from quant.tile import (
    FEW,
    MANY,
    SOME,
    dot_columns,
    few_sums,
    few_totals,
    many_sums,
    many_totals,
    scale_columns,
    some_sums,
    some_totals,
    write_totals,
)
from quant.tile_products import add_matrices, add_pairs

TILE_ROWS = 16
_ADD_U5, _ADD_U4, _ADD_U6_16, _ADD_U4_16 = add_pairs(32, 5), add_pairs(32, 4), add_pairs(16, 6), add_pairs(16, 4)
_ADD_32, _ADD_16 = add_matrices(32), add_matrices(16)


class Tile(NamedTuple):
    """Some columns of 16 rows, unpacked: addresses of int8 [columns / 4, 16, 4] and of float32 [columns / group, 16]."""

    weights: Any
    scales: Any
    minima: Any
    first: Any  # of these columns in the rows
    columns: Any
    group: Any


class Results(NamedTuple):
    """Where products go: `offset` bytes into the results of each token's entry, added to them if accumulate is not 0."""

    entries: Any
    tokens: Any
    rows: Any
    offset: Any
    accumulate: Any


class Ahead(NamedTuple):
    """What is unpacked next: `count` bytes at an address, and as many of each of 15 rows behind it, `row_bytes` apart."""

    address: Any
    row_bytes: Any
    count: Any


@inline
def _fetch_rows(ahead, row, due, groups):
    """Fetch the weights ahead of as many rows as are due, in parts of `groups` a row; the next row, and what is due of it.

    So 16 rows come evenly over all groups of columns, without a division for each.
    """
    while due > 0:
        for line in range(0, ahead.count, 64):
            prefetch_l2(row + line)
        row, due = row + ahead.row_bytes, due - groups
    return row, due


@inline
def _multiply_panel(totals, zeros, tile, panel, columns, results, ahead):
    """Write the products of a tile and one panel of rows of `columns`; zeros: the integer sums of each token at first.

    Meanwhile the weights ahead are fetched into the second-level cache.
    """
    group, groups = tile.group, tile.columns // tile.group
    sums = sums32_of(0, columns) if group == 32 else sums16_of(0, columns)
    x, d = panel + MANY * tile.first, panel + MANY * (columns + tile.first // 8)
    s = panel + MANY * (sums + tile.first // group * 4)
    row, due = ahead.address, 0
    for g in range(groups):
        row, due = _fetch_rows(ahead, row, due + TILE_ROWS, groups)
        products = zeros
        for c in range(g * group, (g + 1) * group, 16):
            products = dot_columns(products, tile.weights + TILE_ROWS * c, x + MANY * c)
        a, b = load_f32x16(tile.scales + 64 * g), load_f32x16(tile.minima + 64 * g)
        totals = scale_columns(totals, products, a, b, d + 4 * MANY * (g * group // 32), s + 4 * MANY * g)
    write_totals(totals, results.entries, results.offset, results.accumulate)


@inline
def by_dots(tile, panel, columns, results, ahead):
    """Write the products of a tile and one panel of rows of `columns`, of at most MANY tokens; see `Ahead`."""
    if results.tokens > SOME:
        totals, zeros = many_totals(), many_sums()
        _multiply_panel(totals, zeros, tile, panel, columns, results, ahead)
    elif results.tokens > FEW:
        fewer, nothing = some_totals(), some_sums()
        _multiply_panel(fewer, nothing, tile, panel, columns, results, ahead)
    else:
        least, zero = few_totals(), few_sums()
        _multiply_panel(least, zero, tile, panel, columns, results, ahead)


@inline
def _panel_by_groups(totals, add, tile, panel, columns, results, ahead):
    """As `_multiply_panel`; add: of `add_pairs` or `add_matrices`."""
    group, groups = tile.group, tile.columns // tile.group
    sums = sums32_of(0, columns) if group == 32 else sums16_of(0, columns)
    x, d = panel + MANY * tile.first, panel + MANY * (columns + tile.first // 8)
    s = panel + MANY * (sums + tile.first // group * 4)
    row, due = ahead.address, 0
    for g in range(groups):
        row, due = _fetch_rows(ahead, row, due + TILE_ROWS, groups)
        w, c = tile.weights + TILE_ROWS * g * group, g * group
        a, b = load_f32x16(tile.scales + 64 * g), load_f32x16(tile.minima + 64 * g)
        totals = add(totals, w, x + MANY * c, a, b, d + 4 * MANY * (c // 32), s + 4 * MANY * g)
    write_totals(totals, results.entries, results.offset, results.accumulate)


@inline
def _by_groups(add, tile, panel, columns, results, ahead):
    if results.tokens > SOME:
        _panel_by_groups(many_totals(), add, tile, panel, columns, results, ahead)
    elif results.tokens > FEW:
        _panel_by_groups(some_totals(), add, tile, panel, columns, results, ahead)
    else:
        _panel_by_groups(few_totals(), add, tile, panel, columns, results, ahead)


@inline
def by_u5(tile, panel, columns, results, ahead):
    """As `by_dots`, on units that leave pairs, of weights of 5 bits that are never negative, with a scale per 32 columns."""
    _by_groups(_ADD_U5, tile, panel, columns, results, ahead)


@inline
def by_u4(tile, panel, columns, results, ahead):
    """The same, of at most 4 bits."""
    _by_groups(_ADD_U4, tile, panel, columns, results, ahead)


@inline
def by_u6_16(tile, panel, columns, results, ahead):
    """The same, of 6 bits, with a scale per 16 columns."""
    _by_groups(_ADD_U6_16, tile, panel, columns, results, ahead)


@inline
def by_u4_16(tile, panel, columns, results, ahead):
    """The same, of at most 4 bits, with a scale per 16 columns."""
    _by_groups(_ADD_U4_16, tile, panel, columns, results, ahead)


@inline
def by_matrices_32(tile, panel, columns, results, ahead):
    """As `by_dots`, by products of matrices, of an interleaved tile with a scale per 32 columns."""
    _by_groups(_ADD_32, tile, panel, columns, results, ahead)


@inline
def by_matrices_16(tile, panel, columns, results, ahead):
    """The same, with a scale per 16 columns."""
    _by_groups(_ADD_16, tile, panel, columns, results, ahead)
