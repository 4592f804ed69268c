"""The gate of a per-layer embedding: f(gate) * some columns of another activation (see quant.kernels.gates)."""

from __future__ import annotations

from quant.activation import row_addresses, store_block
from quant.batch import BATCH
from quant.jit import kernel
from quant.kernels.gates import GATES, gated
from quant.kernels.partition import start_of
from quant.plan import Activation, Plan
from quant.simd import load_f32x16, load_i64, store_f32x16


@kernel
def gate_rows(rank, size, gate, gate_stride, x, x_stride, columns, function, out, batch):
    """f(gate) * x, both [tokens, columns] -> out (an OUTPUT table); threads share the tokens."""
    tokens, whole = load_i64(batch + BATCH.tokens), columns // 32 * 32
    for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
        g, u = gate + t * gate_stride, x + t * x_stride
        y, q, residual = row_addresses(out, t)
        for c in range(0, 4 * whole, 128):
            a = gated(load_f32x16(g + c), load_f32x16(u + c), function)
            b = gated(load_f32x16(g + c + 64), load_f32x16(u + c + 64), function)
            store_block(a, b, columns, c // 128, y, q, residual)
        if whole < columns:  # 16 columns, which only float32 rows can have
            c = 4 * whole
            store_f32x16(y + c, gated(load_f32x16(g + c), load_f32x16(u + c), function))


def gate_columns(plan: Plan, gate: Activation, x: Activation, first: int, out: Activation, activation: str) -> None:
    """f(gate) * columns from `first` on of x -> out; gate, out [tokens, n], x float32 [tokens, first + n or more]."""
    n = gate.columns
    if n % 16 or first % 16 or first + n > x.columns or out.columns != n:
        raise ValueError(f"{n} columns of {x.columns} from {first} on -> {out.columns}")
    rows = gate.read("f32"), gate.stride("f32"), x.part(first, n).read("f32"), x.stride("f32")
    plan.add(gate_rows, *rows, n, GATES[activation], plan.output(out), plan.batch)
