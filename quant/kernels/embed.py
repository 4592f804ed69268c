"""Token embeddings: rows of a matrix, unpacked to float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.atomics import call
from quant.int8_dot import BIAS
from quant.jit import inline, kernel
from quant.kernels.share import first_of
from quant.plan import Activation, Plan
from quant.simd import (
    bits_to_f32,
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


@inline
def expand(q, scale, minimum, columns, group, y):
    """What unpack_rows made of one row -> float32 [columns]; bytes are unsigned where `int8_dot` adds a bias."""
    for c in range(0, columns, 16):
        values = load_u8x16_as_f32(q + c) if BIAS else load_i8x16_as_f32(q + c)
        g = 4 * (c // group)
        store_f32x16(y + 4 * c, fma(values, splat(load_f32(scale + g)), splat(-load_f32(minimum + g))))


@kernel
def embed_rows(rank, size, ids, w, row_bytes, columns, group, unpack, factor, y, stride, run, scratch, scratch_stride):
    """Threads share the tokens."""
    tokens, times = load_i64(run), splat(bits_to_f32(factor))
    q = scratch + rank * scratch_stride
    scale, minimum = q + columns, q + 2 * columns
    for t in range(first_of(rank, size, tokens), first_of(rank + 1, size, tokens)):
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
    kind = table.format
    operands = (ids, table.address, table.row_bytes, table.columns, kind.group, kind.unpack_rows, scale)
    plan.weight_bytes += table.row_bytes
    plan.add(embed_rows, *operands, out.read("f32"), out.stride("f32"), plan.run, *plan.scratch(3 * table.columns))
