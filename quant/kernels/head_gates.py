"""Gates of whole heads: what a head gives, times the sigmoid of one number."""

from __future__ import annotations

from quant.activation import store_output
from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.partition import start_of
from quant.kernels.scalar import sigmoid1
from quant.plan import Activation, Plan
from quant.simd import load_f32, load_f32x16, load_i64, mul, splat


@inline
def _gated(x, gates, column, width):
    """16 columns of x [heads, width], times the sigmoid of their head's gate."""
    return mul(load_f32x16(x + 4 * column), splat(sigmoid1(load_f32(gates + 4 * (column // width)))))


@kernel
def gate_rows(rank, size, x, stride, gates, gates_stride, columns, width, out, batch):
    """x [tokens, heads, width], gates [tokens, heads] -> out (an OUTPUT table); threads share (token, 32 columns)."""
    blocks = columns // 32
    items = load_i64(batch + BATCH.tokens) * blocks
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        t, block = item // blocks, item % blocks
        row, gate = x + t * stride, gates + t * gates_stride
        a, b = _gated(row, gate, 32 * block, width), _gated(row, gate, 32 * block + 16, width)
        store_output(a, b, columns, block, out, t)


def gate_heads(plan: Plan, x: Activation, gates: Activation, out: Activation) -> None:
    """x float32 [tokens, heads * width] times the sigmoid of gates [tokens, heads] -> out; width is a multiple of 16."""
    width = x.columns // gates.columns
    if out.columns != x.columns or x.columns % 32 or width % 16 or width * gates.columns != x.columns:
        raise ValueError(f"{gates.columns} gates of {x.columns} columns -> {out.columns}")
    rows = x.read("f32"), x.stride("f32"), gates.read("f32"), gates.stride("f32")
    plan.add(gate_rows, *rows, x.columns, width, plan.output(out), plan.batch)
