"""Rows that others add to: set to zero before, and written out in every layout that is read after."""

from __future__ import annotations

from quant.activation import store_output
from quant.jit import kernel
from quant.kernels.partition import start_of
from quant.plan import BATCH, Activation, Plan
from quant.simd import load_f32x16, load_i64, store_f32x16, zero_f32x16


@kernel
def zero_rows(rank, size, y, stride, columns, batch):
    """y [tokens, columns] = 0; threads share all rows' blocks of 32 columns."""
    blocks = columns // 32
    count = load_i64(batch + BATCH.tokens) * blocks
    for item in range(start_of(rank, size, count), start_of(rank + 1, size, count)):
        at = y + item // blocks * stride + item % blocks * 128
        store_f32x16(at, zero_f32x16())
        store_f32x16(at + 64, zero_f32x16())


@kernel
def store_rows(rank, size, y, stride, columns, out, batch):
    """y [tokens, columns] -> out (an OUTPUT table); threads share all rows' blocks of 32 columns."""
    blocks = columns // 32
    count = load_i64(batch + BATCH.tokens) * blocks
    for item in range(start_of(rank, size, count), start_of(rank + 1, size, count)):
        t, block = item // blocks, item % blocks
        at = y + t * stride + 128 * block
        store_output(load_f32x16(at), load_f32x16(at + 64), columns, block, out, t)


def clear(plan: Plan, y: Activation) -> None:
    """y float32 [tokens, n] = 0, n a multiple of 32."""
    if y.columns % 32:
        raise ValueError(f"{y.columns} columns are no multiple of 32")
    plan.add(zero_rows, y.read("f32"), y.stride("f32"), y.columns, plan.batch)


def copy(plan: Plan, y: Activation, out: Activation) -> None:
    """y float32 [tokens, n] -> out [tokens, n], n a multiple of 32, in every layout that is read of it."""
    if y.columns % 32 or out.columns != y.columns:
        raise ValueError(f"{y.columns} columns to {out.columns}: kernels need a multiple of 32")
    plan.add(store_rows, y.read("f32"), y.stride("f32"), y.columns, plan.output(out), plan.batch)
