"""A matrix for each head times that head's rows, as multi-head latent attention has them (see qcli.models.deepseek2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.atomics import call
from quant.jit import kernel
from quant.kernels.experts_grouped import down_grouped, down_scratch, multiply_operands
from quant.kernels.panels import pack
from quant.kernels.share import COUNTER_WORDS, first_of
from quant.plan import Activation, Operand, Plan
from quant.simd import load_i64, store_i64
from quant.weights import Experts


@kernel
def head_step(rank, size, heads, w, dot, row_bytes, columns, x, x_stride, rows, y, y_step):
    """One token: y[head] = w[head] x[head]; threads share the rows of all heads."""
    first, last = first_of(rank, size, heads * rows), first_of(rank + 1, size, heads * rows)
    for head in range(first // rows, (last + rows - 1) // rows):
        begin, end = max(first - head * rows, 0), min(last - head * rows, rows)
        weights, out = load_i64(w + 8 * head) + begin * row_bytes, y + head * y_step + 4 * begin
        call(dot, (weights, end - begin, columns, x + head * x_stride, out, np.float32(1), 0))


@kernel
def head_slots(rank, size, heads, starts, slots, run):
    """Row token * heads + head of every token, head by head: int64 slots [heads * tokens], starts [heads + 1]."""
    tokens = load_i64(run)
    for head in range(first_of(rank, size, heads), first_of(rank + 1, size, heads)):
        store_i64(starts + 8 * head, head * tokens)
        for t in range(tokens):
            store_i64(slots + 8 * (head * tokens + t), t * heads + head)
    if rank == 0:
        store_i64(starts + 8 * heads, heads * tokens)


def head_matmul(plan: Plan, x: Activation, w: Experts, y: Activation, at: int = 0) -> None:
    """For each head: x [tokens * heads, k], w[head] [n, k] -> columns at to at + n of that head in y [tokens, heads * …]."""
    heads, width = w.count, y.columns // w.count
    if x.columns != w.columns or at + w.rows > width or x.tokens < heads * plan.tokens or width % 16:
        raise ValueError(f"{heads} heads: [{x.tokens}, {x.columns}] x [{w.rows}, {w.columns}] -> {y.columns}, at {at}")
    kind, out = w.format.activation, int(y.read("f32").ctypes.data + 4 * at)
    rows = x.read(kind), x.stride(kind)
    plan.keep(w, y)
    plan.weight_bytes += heads * w.bytes
    if plan.tokens == 1:
        dot = w.format.dot_rows, w.row_bytes, w.columns
        plan.add(head_step, heads, w.addresses, *dot, *rows, w.rows, out, 4 * width)
        return
    starts, slots, ones = plan.once(("head slots", heads), lambda: _slots(plan, heads))
    counter: Operand = 0
    packed: Operand = 0
    if kind == "q8":
        counter = plan.buffer("head counter", COUNTER_WORDS, np.int64)
        places = {"sets": heads, "places": heads * plan.tokens}
        packed = pack(plan, f"heads {heads}", x, kind, starts=starts, slots=slots, counter=counter, **places)
    plan.add(
        down_grouped, heads, 1, starts, slots, ones, w.addresses, 0, *multiply_operands(w), *rows, packed, w.rows, out,
        4 * width, 0, plan.tokens, counter, *plan.scratch(down_scratch(plan.tokens, w)),
    )  # fmt: skip


def _slots(plan: Plan, heads: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Where each head's rows are, and a weight of 1 for each; found once a replay."""
    starts, slots = (
        plan.buffer("head starts", heads + 1, np.int64),
        plan.buffer("head slots", heads * plan.tokens, np.int64),
    )
    plan.add(head_slots, heads, starts, slots, plan.run)
    return starts, slots, np.ones(heads * plan.tokens, np.float32)
