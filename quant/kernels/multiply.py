"""A tile of at most 16 weight rows times many tokens: unpacked once, then met by every token while it is in the cache."""

from __future__ import annotations

import numpy as np
from numba import types

from quant.activation import sums16_of, sums32_of
from quant.atomics import call
from quant.formats import Format
from quant.jit import Kernel, inline, row_kernel
from quant.simd import load_f32, load_f32x16, load_i64, store_f32, store_i64
from quant.tile import (
    ENTRY_BYTES,
    TOKENS,
    dot_columns,
    fma_column,
    scale_columns,
    transpose16,
    write_totals,
    zero_sums,
    zero_totals,
)  # fmt: skip

ROWS = 16
_P = types.intp
_LOCAL_BYTES = TOKENS * (ENTRY_BYTES + 64)

# multiply(unpack, w, row_bytes, rows, columns, group, table, tokens, offset, accumulate, scratch)
# result[t][0..rows) = factor[t] * (w . x[t]), `offset` bytes into each token's result; see quant.tile for the table.
_multiply = row_kernel(_P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P)


def scratch_bytes(columns: int) -> int:
    """Scratch memory that one call needs for rows of that many columns, whatever the format."""
    padded = -(-columns // 64) * 64
    scales = 4 * ROWS * (-(-columns // 256) * 16) * 4  # two arrays, before and after they are transposed
    return _LOCAL_BYTES + 8 * ROWS * padded + scales


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
def _gather(table, first, tokens, rows, offset, local):
    """Copy the tile's entries; what must not be written over goes to a spare result behind the local table."""
    for i in range(TOKENS):
        entry = table + min(first + i, tokens - 1) * ENTRY_BYTES
        spare = first + i >= tokens or rows < ROWS
        y = local + TOKENS * ENTRY_BYTES + 64 * i if spare else load_i64(entry + 8) + offset
        set_entry(local, i, load_i64(entry), y, load_f32(entry + 16))


@inline
def _scatter(table, first, tokens, rows, offset, accumulate, local):
    """Copy the rows of an incomplete tile from the spare results."""
    for i in range(min(TOKENS, tokens - first)):
        y = load_i64(table + (first + i) * ENTRY_BYTES + 8) + offset
        spare = local + TOKENS * ENTRY_BYTES + 64 * i
        for r in range(rows):
            before = load_f32(y + 4 * r) if accumulate else np.float32(0)
            store_f32(y + 4 * r, before + load_f32(spare + 4 * r))


@_multiply
def multiply_q8(unpack, w, row_bytes, rows, columns, group, table, tokens, offset, accumulate, scratch):
    """Quantized weights by 'q8' activations."""
    padded, groups = (columns + 63) // 64 * 64, columns // group
    stride = (groups + 15) // 16 * 64
    q = scratch + _LOCAL_BYTES
    tile = q + ROWS * padded
    scale = tile + ROWS * padded
    minimum = scale + ROWS * stride
    scales = minimum + ROWS * stride
    minima = scales + ROWS * stride
    for r in range(rows):
        call(unpack, (w + r * row_bytes, 1, columns, q + r * padded, scale + r * stride, minimum + r * stride))
    for c in range(0, padded, 64):
        transpose16(q + c, padded, tile + ROWS * c, 64)
    for byte in range(0, stride, 64):
        transpose16(scale + byte, stride, scales + ROWS * byte, 64)
        transpose16(minimum + byte, stride, minima + ROWS * byte, 64)
    sums_offset = sums32_of(0, columns) if group == 32 else sums16_of(0, columns)
    for first in range(0, tokens, TOKENS):
        _gather(table, first, tokens, rows, offset, scratch)
        totals = zero_totals()
        for g in range(groups):
            sums = zero_sums()
            for c in range(g * group, (g + 1) * group, 16):
                sums = dot_columns(sums, tile + ROWS * c, scratch, c)
            a, b = load_f32x16(scales + 64 * g), load_f32x16(minima + 64 * g)
            d_offset = columns + g * group // 32 * 4
            totals = scale_columns(totals, sums, a, b, scratch, d_offset, sums_offset + 4 * g)
        write_totals(totals, scratch, accumulate)
        if rows < ROWS:
            _scatter(table, first, tokens, rows, offset, accumulate, scratch)


@_multiply
def multiply_f32(unpack, w, row_bytes, rows, columns, group, table, tokens, offset, accumulate, scratch):
    """Float weights by 'f32' activations."""
    q = scratch + _LOCAL_BYTES
    tile = q + 4 * ROWS * columns
    for r in range(rows):
        call(unpack, (w + r * row_bytes, 1, columns, q + 4 * r * columns, 0, 0))
    for c in range(0, columns, 16):
        transpose16(q + 4 * c, 4 * columns, tile + 4 * ROWS * c, 64)
    for first in range(0, tokens, TOKENS):
        _gather(table, first, tokens, rows, offset, scratch)
        totals = zero_totals()
        for c in range(columns):
            totals = fma_column(totals, load_f32x16(tile + 4 * ROWS * c), scratch, 4 * c)
        write_totals(totals, scratch, accumulate)
        if rows < ROWS:
            _scatter(table, first, tokens, rows, offset, accumulate, scratch)
