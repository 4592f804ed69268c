"""Hyper-connections: several residual streams, mixed into the input of a sublayer, whose output is added to all of them.

As in Qwen4-Exp (after Zhu et al., arXiv 2409.19606): each stream is normed by itself and gated, channel by channel, by a
low-rank projection of all streams; the mean of the streams goes into the sublayer. Its output is added to stream s with the
weight 2 sigmoid(inject[s]).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import store_output
from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.norm import inverse_rms
from quant.kernels.partition import start_of
from quant.kernels.scalar import sigmoid1
from quant.plan import Activation, Plan
from quant.simd import add, bits_to_f32, fma, load_f32, load_f32x16, load_i64, mul, splat, store_f32x16, zero_f32x16
from quant.vector_math import sigmoid, silu


@kernel
def norm_streams_rows(rank, size, x, x_stride, weight, streams, columns, eps, out, batch, last):
    """x [tokens, streams, columns] -> out (an OUTPUT table), each stream normed by itself; last: the last token's row alone.

    Threads share (token, stream).
    """
    tokens = load_i64(batch + BATCH.tokens)
    items = streams if last else tokens * streams
    x += (tokens - 1) * x_stride if last else 0
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        t, s = item // streams, item % streams
        row, w, before = x + t * x_stride + 4 * s * columns, weight + 4 * s * columns, s * columns // 32
        scale = splat(inverse_rms(row, columns, bits_to_f32(eps)))
        for c in range(0, columns, 32):
            a = mul(mul(load_f32x16(row + 4 * c), scale), load_f32x16(w + 4 * c))
            b = mul(mul(load_f32x16(row + 4 * c + 64), scale), load_f32x16(w + 4 * c + 64))
            store_output(a, b, streams * columns, before + c // 32, out, t)


@kernel
def silu_rows(rank, size, x, x_stride, columns, out, batch):
    """silu of x [tokens, columns] -> out (an OUTPUT table); threads share (token, 32 columns)."""
    blocks = columns // 32
    items = load_i64(batch + BATCH.tokens) * blocks
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        t, block = item // blocks, item % blocks
        row = x + t * x_stride + 128 * block
        a, b = silu(load_f32x16(row)), silu(load_f32x16(row + 64))
        store_output(a, b, columns, block, out, t)


@inline
def _mean(x, gate, streams, columns):
    """16 columns of the mean over streams of x * sigmoid(gate)."""
    total = zero_f32x16()
    for s in range(streams):
        at = 4 * s * columns
        total = fma(load_f32x16(x + at), sigmoid(load_f32x16(gate + at)), total)
    return mul(total, splat(np.float32(1) / np.float32(streams)))


@kernel
def mean_streams_rows(rank, size, x, gate, stride, streams, columns, out, batch):
    """The mean over streams of x * sigmoid(gate), both [tokens, streams, columns] -> out [tokens, columns] (an OUTPUT table)."""
    blocks = columns // 32
    items = load_i64(batch + BATCH.tokens) * blocks
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        t, block = item // blocks, item % blocks
        at = t * stride + 128 * block
        a = _mean(x + at, gate + at, streams, columns)
        b = _mean(x + at + 64, gate + at + 64, streams, columns)
        store_output(a, b, columns, block, out, t)


@kernel
def add_to_streams_rows(rank, size, x, x_stride, streams, columns, added, added_stride, inject, inject_stride, batch):
    """x [tokens, streams, columns] += added * 2 sigmoid(inject) of each stream; added is zero afterwards."""
    parts = columns // 16
    items = load_i64(batch + BATCH.tokens) * parts
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        t, at = item // parts, 64 * (item % parts)
        row = added + t * added_stride + at
        value = load_f32x16(row)
        store_f32x16(row, zero_f32x16())
        for s in range(streams):
            weight = splat(np.float32(2) * sigmoid1(load_f32(inject + t * inject_stride + 4 * s)))
            y = x + t * x_stride + 4 * s * columns + at
            store_f32x16(y, add(load_f32x16(y), mul(value, weight)))


def norm_streams(plan: Plan, x: Activation, weight: NDArray[np.float32], eps: float, out: Activation) -> None:
    """x [tokens, streams * n], weight float32 [streams, n] -> out, in float32 and as its readers ask.

    The last token's row alone where the plan takes one token.
    """
    streams, columns = weight.shape
    if x.columns != streams * columns or out.columns != x.columns or columns % 32:
        raise ValueError(f"{streams} streams of {columns}: {x.columns} and {out.columns} columns")
    out.read("f32")  # which `mean_streams` reads, too
    rows, last = (x.read("f32"), x.stride("f32")), int(plan.tokens == 1)
    plan.add(norm_streams_rows, *rows, weight, streams, columns, eps, plan.output(out), plan.batch, last)


def silu_activation(plan: Plan, x: Activation, out: Activation) -> None:
    """silu of x [tokens, n] -> out."""
    if x.columns != out.columns or x.columns % 32:
        raise ValueError(f"silu of {x.columns} columns -> {out.columns}")
    plan.add(silu_rows, x.read("f32"), x.stride("f32"), x.columns, plan.output(out), plan.rows)


def mean_streams(plan: Plan, x: Activation, gate: Activation, out: Activation) -> None:
    """The mean over streams of x * sigmoid(gate), both [tokens, streams * n] -> out [tokens, n]."""
    columns = out.columns
    if x.columns != gate.columns or x.columns % columns or columns % 32:
        raise ValueError(f"streams of {x.columns} and {gate.columns} columns -> {columns}")
    shape = x.stride("f32"), x.columns // columns, columns
    plan.add(mean_streams_rows, x.read("f32"), gate.read("f32"), *shape, plan.output(out), plan.rows)


def add_to_streams(plan: Plan, x: Activation, added: Activation, inject: Activation) -> None:
    """x [tokens, streams * n] += added [tokens, n] * 2 sigmoid(inject [tokens, streams]); added is zero afterwards."""
    streams = inject.columns
    if x.columns != streams * added.columns or added.columns % 16:
        raise ValueError(f"{streams} streams of {added.columns}: {x.columns} columns")
    rows = added.read("f32"), added.stride("f32"), inject.read("f32"), inject.stride("f32")
    plan.add(add_to_streams_rows, x.read("f32"), x.stride("f32"), streams, added.columns, *rows, plan.batch)
