"""Token embeddings: rows of a matrix, unpacked to float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.atomics import call
from quant.batch import BATCH
from quant.int8_dot import BIAS
from quant.jit import inline, kernel
from quant.kernels.partition import start_of
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import (
    fma,
    load_f32,
    load_f32x16,
    load_i8x16_as_f32,
    load_i64,
    load_u8x16_as_f32,
    mul,
    splat,
    store_f32x16,
)
from quant.weights import Matrix

TABLE = Layout(  # of embeddings
    "weights",  # the first row
    "row_bytes",
    "columns",
    "group",  # columns that share a scale; 0 for float weights
    "unpack",  # unpack_rows of the format
    "scale",  # float32, of every row
)


@inline
def expand(q, scale, minimum, columns, group, y):
    """What unpack_rows made of one row -> float32 [columns]; bytes are unsigned where `int8_dot` adds a bias."""
    for c in range(0, columns, 16):
        values = load_u8x16_as_f32(q + c) if BIAS else load_i8x16_as_f32(q + c)
        g = 4 * (c // group)
        store_f32x16(y + 4 * c, fma(values, splat(load_f32(scale + g)), splat(-load_f32(minimum + g))))


@kernel
def embed_rows(rank, size, ids, table, y, stride, batch, scratch, scratch_stride):
    """scale * the row of every id -> y; threads share the tokens."""
    tokens, times = load_i64(batch + BATCH.tokens), splat(load_f32(table + TABLE.scale))
    w, row_bytes = load_i64(table + TABLE.weights), load_i64(table + TABLE.row_bytes)
    columns, group = load_i64(table + TABLE.columns), load_i64(table + TABLE.group)
    unpack = load_i64(table + TABLE.unpack)
    q = scratch + rank * scratch_stride
    scale, minimum = q + columns, q + 2 * columns
    for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
        row = w + load_i64(ids + 8 * t) * row_bytes
        if group:
            call(unpack, (row, 1, columns, q, scale, minimum))
            expand(q, scale, minimum, columns, group, y + t * stride)
        else:
            call(unpack, (row, 1, columns, y + t * stride, 0, 0))
        for c in range(y + t * stride, y + t * stride + 4 * columns, 64):
            store_f32x16(c, mul(load_f32x16(c), times))


def embed(plan: Plan, ids: NDArray[np.int64], table: Matrix, out: Activation, scale: float = 1.0) -> None:
    """ids int64 [tokens], each below the rows of `table` [vocab, n] -> out float32 [tokens, n], times scale."""
    if out.columns != table.columns or len(ids) < plan.tokens:
        raise ValueError(f"{len(ids)} ids and [{table.rows}, {table.columns}] -> {out.columns} columns")
    plan.weight_bytes += table.row_bytes
    add_rows(plan, ids, table, out.read("f32"), out.stride("f32"), plan.batch, scale)


def add_rows(
    plan: Plan, ids: Operand, table: Matrix, y: Operand, stride: int, batch: Operand, scale: float = 1.0
) -> None:
    """Add the record: rows of `table` for as many ids as BATCH tells -> float32 rows at y, `stride` bytes apart."""
    operands = plan.table(
        TABLE,
        weights=table.data,
        row_bytes=table.row_bytes,
        columns=table.columns,
        group=table.format.group,
        unpack=table.format.unpack_rows,
        scale=float(scale),
    )
    plan.add(embed_rows, ids, operands, y, stride, batch, *plan.scratch(3 * table.columns))
