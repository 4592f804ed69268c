"""Root-mean-square norm: y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, arXiv 1910.07467)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quant.activation import quantize_block
from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.partition import start_of
from quant.plan import Activation, Plan
from quant.simd import add, bits_to_f32, fma, load_f32x16, load_i64, mul, splat, store_f32x16, sum_lanes, zero_f32x16


@inline
def inverse_rms(x, columns, eps):
    """1 / sqrt(mean(x^2) + eps) of float32 [columns]."""
    squares = zero_f32x16()
    for c in range(0, columns, 16):
        v = load_f32x16(x + 4 * c)
        squares = fma(v, v, squares)
    return np.float32(1) / np.float32(math.sqrt(sum_lanes(squares) / np.float32(columns) + eps))


@inline
def _norm_part(x, weight, columns, scale, first, last, y, q):
    """Columns first to last (multiples of 16; of 32 where q is asked for) of one row."""
    if y:
        for c in range(first, last, 16):
            store_f32x16(y + 4 * c, mul(mul(load_f32x16(x + 4 * c), splat(scale)), load_f32x16(weight + 4 * c)))
    if q:
        for c in range(first, last, 32):
            a = mul(mul(load_f32x16(x + 4 * c), splat(scale)), load_f32x16(weight + 4 * c))
            b = mul(mul(load_f32x16(x + 4 * c + 64), splat(scale)), load_f32x16(weight + 4 * c + 64))
            quantize_block(a, b, columns, c // 32, q, 0)


@inline
def _unit_of(columns):
    """How many columns are not divided among threads."""
    return 32 if columns % 32 == 0 else 16


@kernel
def rms_norm_step(rank, size, x, columns, weight, eps, y, q, batch, stride):
    """The last token's row of this replay: threads share its columns; each sums the squares for itself."""
    x += (load_i64(batch + BATCH.tokens) - 1) * stride
    scale, unit = inverse_rms(x, columns, bits_to_f32(eps)), _unit_of(columns)
    first, last = start_of(rank, size, columns // unit), start_of(rank + 1, size, columns // unit)
    _norm_part(x, weight, columns, scale, unit * first, unit * last, y, q)


@kernel
def rms_norm_rows(rank, size, x, columns, weight, eps, y, q, batch, stride, q_stride):
    """Every token's row: threads share all rows' columns; each sums the squares of the rows that it has a part of."""
    unit = _unit_of(columns)
    units = columns // unit
    count = load_i64(batch + BATCH.tokens) * units
    at, last = start_of(rank, size, count), start_of(rank + 1, size, count)
    while at < last:
        t = at // units
        row, end = x + t * stride, min(last, (t + 1) * units)
        scale, begin = inverse_rms(row, columns, bits_to_f32(eps)), t * units
        to, to_q = y + t * stride if y else 0, q + t * q_stride if q else 0
        _norm_part(row, weight, columns, scale, unit * (at - begin), unit * (end - begin), to, to_q)
        at = end


@kernel
def add_rms_norm_rows(rank, size, y, groups, columns, weight, eps, x, scale, batch, stride):
    """x = scale * (x + norm(y)), both [tokens, groups, columns], and y = 0; threads share (token, group)."""
    items, times = load_i64(batch + BATCH.tokens) * groups, splat(bits_to_f32(scale))
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        at = item // groups * stride + item % groups * columns * 4
        inverse = splat(inverse_rms(y + at, columns, bits_to_f32(eps)))
        for c in range(0, 4 * columns, 64):
            normed = mul(mul(load_f32x16(y + at + c), inverse), load_f32x16(weight + c))
            store_f32x16(x + at + c, mul(add(load_f32x16(x + at + c), normed), times))
            store_f32x16(y + at + c, zero_f32x16())


def rms_norm(plan: Plan, x: Activation, weight: NDArray[np.float32], eps: float, out: Activation) -> None:
    """x float32 [tokens, n], weight float32 [n] -> out; the last token's row only where `out` holds one row."""
    if weight.shape != (x.columns,) or out.columns != x.columns or x.columns % 16:
        raise ValueError(f"norm of {x.columns} columns with a weight {weight.shape}")
    rows, f32, q8 = x.read("f32"), out.written("f32"), out.written("q8")
    if out.tokens == 1:
        plan.add(rms_norm_step, rows, x.columns, weight, eps, f32, q8, plan.batch, x.stride("f32"))
    else:
        plan.add(rms_norm_rows, rows, x.columns, weight, eps, f32, q8, plan.batch, x.stride("f32"), out.stride("q8"))


def add_rms_norm(
    plan: Plan, y: Activation, weight: NDArray[np.float32], eps: float, x: Activation, scale: float = 1.0
) -> None:
    """x = scale * (x + the norm of y), both float32 [tokens, groups * n], each group normed by itself with weight [n].

    y is zero after that, for who next adds to it.
    """
    columns = len(weight)
    if columns == 0 or columns % 16 or y.columns != x.columns or x.columns % columns:
        raise ValueError(f"norm of {y.columns} columns with a weight {weight.shape} for {x.columns}")
    rows = y.read("f32"), y.columns // columns, columns
    plan.add(add_rms_norm_rows, *rows, weight, eps, x.read("f32"), float(scale), plan.batch, x.stride("f32"))
