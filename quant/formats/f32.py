"""F32: float32, little-endian."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.attention_tile import ROWS, WIDE, add_products, store_lane_sums, wide_sums
from quant.block import Block, Weight
from quant.blocks.rows import emit
from quant.formats import Format, dot_rows, step_rows, unpack_rows, unpack_tile
from quant.jit import inline
from quant.simd import fma, load_f32, load_f32x16, load_i64, prefetch_l2, store_f32x16, sum_lanes, zero_f32x16
from quant.tile import ENTRY, transpose16

_ROWS_ALONE = 16  # that few tokens are multiplied with, one after the other
_SUMS = 8 * WIDE  # bytes of a token's sums: those of WIDE rows of even vectors of columns, then of odd ones
BLOCK = Block("F32", number=0, columns=1, x=Weight("f32"))


def dequantize(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [rows, 4 columns] -> float32 [rows, columns]."""
    return np.ascontiguousarray(data).view(np.float32)


@inline
def _dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """`f32_dot_rows`; two sums in flight."""
    for r in range(rows):
        even, odd = zero_f32x16(), zero_f32x16()
        for c in range(0, columns - 16, 32):
            even = fma(load_f32x16(w + 4 * c), load_f32x16(x + 4 * c), even)
            odd = fma(load_f32x16(w + 4 * c + 64), load_f32x16(x + 4 * c + 64), odd)
        if columns % 32:
            even = fma(load_f32x16(w + 4 * columns - 64), load_f32x16(x + 4 * columns - 64), even)
        emit(y + 4 * r, sum_lanes(even) + sum_lanes(odd), alpha, accumulate)
        w += 4 * columns


@dot_rows
def f32_dot_rows(w, rows, columns, x, y, alpha, accumulate):
    """See quant.formats."""
    _dot_rows(w, rows, columns, x, y, alpha, accumulate)


@inline
def _tile_sums(w, columns, entries, half, sums, first, last):
    """Even (half 0) or odd vectors of 16 columns of WIDE rows and ROWS tokens, as `_dot_rows` adds them up -> sums.

    The same columns of rows first to last, from w on, are asked for meanwhile.
    """
    totals, row_bytes = wide_sums(), 4 * columns
    for c in range(64 * half, row_bytes, 128):
        totals = add_products(totals, entries, w, row_bytes, c)
        for r in range(first, last):
            prefetch_l2(w + r * row_bytes + c)
    store_lane_sums(totals, sums + 4 * WIDE * half, _SUMS)


@step_rows
def f32_step_rows(w, rows, columns, entries, count, added, accumulate, scratch):
    """See quant.formats: WIDE rows times ROWS tokens at a time, since a product needs two loads, and one of a tile half a load.

    The last tile begins sooner if more than one token would be left over, which is as quick alone. The rows of the next tile
    are asked for meanwhile, some of them with each ROWS tokens.
    """
    step, in_tiles, r = WIDE, count if count % ROWS > 1 else count // ROWS * ROWS, 0
    if count < ROWS:
        step, in_tiles = _ROWS_ALONE, 0
    while r < rows:
        tile, some = w + 4 * columns * r, min(step, rows - r)
        tiled = in_tiles if some == WIDE else 0
        for half in range(2):
            for t in range(0, tiled, ROWS):
                at, first, last = min(t, count - ROWS), WIDE + WIDE * t // tiled, WIDE + WIDE * (t + ROWS) // tiled
                _tile_sums(tile, columns, entries + at * ENTRY.bytes, half, scratch + at * _SUMS, first, last)
        for t in range(count):
            entry, adds, sums = entries + t * ENTRY.bytes, 1 if t >= added else accumulate, scratch + t * _SUMS
            y, factor = load_i64(entry + ENTRY.result) + 4 * r, load_f32(entry + ENTRY.factor)
            if t >= tiled:
                _dot_rows(tile, some, columns, load_i64(entry + ENTRY.activation), y, factor, adds)
                continue
            for i in range(0, 4 * WIDE, 4):
                emit(y + i, load_f32(sums + i) + load_f32(sums + 4 * WIDE + i), factor, adds)
        r += step


@unpack_rows
def f32_unpack_rows(w, rows, columns, q, scale, minimum):
    """See quant.formats."""
    for c in range(0, rows * columns, 16):
        store_f32x16(q + 4 * c, load_f32x16(w + 4 * c))


@unpack_tile
def f32_unpack_tile(w, row_bytes, columns, tile, scales, minima, scratch):
    """See quant.formats."""
    for c in range(0, columns, 16):
        transpose16(w + 4 * c, row_bytes, tile + 64 * c, 64)


FORMAT = Format(
    block=BLOCK,
    activation="f32",
    group=0,
    dequantize=dequantize,
    dot_rows=f32_dot_rows,
    unpack_rows=f32_unpack_rows,
    unpack_tile=f32_unpack_tile,
    step_rows=f32_step_rows if WIDE > 1 else None,  # elsewhere products alone take as long
)
