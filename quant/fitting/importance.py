"""The weights of the columns of sixteen blocks in a search for scales: how much an error there counts."""

from __future__ import annotations

import numpy as np

from quant.fitting.lanes import spread, sqrt, unknown
from quant.jit import inline
from quant.simd import add, load_f32, load_f32x16, load_i64, mul, store_f32, store_f32x16

ROW_MEANS = 128  # bytes: where a table of addresses, int64 [16 lanes], ends and the means of their rows are


@inline
def importance_lanes(table, column, count, weights, stage):
    """The importance of `count` columns from `column` on: float32 [count, 16 lanes]; stage: as much memory.

    table: int64 [16], the address of each block's importance.
    """
    for lane in range(unknown(16)):
        source = load_i64(table + 8 * lane) + 4 * column
        for part in range(count // 16):
            store_f32x16(stage + 4 * count * lane + 64 * part, load_f32x16(source + 64 * part))
    spread(stage, 4 * count, count, weights)


@inline
def importance_weights(table, column, count, x, sigma2, weights, stage):
    """importance * sqrt(sigma2 + x^2), likewise; x: float32 [count, 16 lanes]."""
    importance_lanes(table, column, count, weights, stage)
    for i in range(unknown(count)):
        value = load_f32x16(x + 64 * i)
        size = sqrt(add(sigma2, mul(value, value)))
        store_f32x16(weights + 64 * i, mul(load_f32x16(weights + 64 * i), size))


@inline
def square_weights(x, count, weights):
    """x^2, where no importance is known; float32 [count, 16 lanes]."""
    for i in range(unknown(count)):
        value = load_f32x16(x + 64 * i)
        store_f32x16(weights + 64 * i, mul(value, value))


@inline
def mean_squares(x, rows, columns, out):
    """The mean of x^2 of each row: float32 [rows]."""
    for _ in range(rows):
        total = np.float32(0)
        for c in range(columns):
            total += load_f32(x + 4 * c) * load_f32(x + 4 * c)
        store_f32(out, total / np.float32(columns))
        x += 4 * columns
        out += 4
