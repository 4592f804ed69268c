"""A matrix for each head times that head's rows, as multi-head latent attention has them."""

from __future__ import annotations

import numpy as np

from quant.batch import BATCH
from quant.jit import kernel
from quant.kernels.assignments import ASSIGNMENTS, Assignments
from quant.kernels.experts_grouped import down_grouped, down_scratch
from quant.kernels.few_rows import few_operands, few_scratch_bytes, multiply_few
from quant.kernels.multiply import set_entry, tile_operands
from quant.kernels.panels import input_table
from quant.kernels.partition import COUNTER_WORDS, shares_of, start_of
from quant.plan import Activation, Operand, Plan
from quant.simd import load_i64, store_i64
from quant.tile import ENTRY
from quant.weights import MATRIX, ExpertMatrices, row_address


@kernel
def head_step(rank, size, heads, matrix, x, x_stride, y, y_step, y_stride, batch, scratch, scratch_stride):
    """Tokens of a stepwise plan: y[token, head] = w[head] x[token, head]; threads share the rows of all heads."""
    rows, tokens = load_i64(matrix + MATRIX.rows), load_i64(batch + BATCH.tokens)
    entries = scratch + rank * scratch_stride
    first, last = start_of(rank, size, heads * rows), start_of(rank + 1, size, heads * rows)
    for head in range(first // rows, (last + rows - 1) // rows):
        begin, end = max(first - head * rows, 0), min(last - head * rows, rows)
        for t in range(tokens):
            out = y + t * y_stride + head * y_step + 4 * begin
            set_entry(entries, t, x + (t * heads + head) * x_stride, out, np.float32(1))
        memory = entries + tokens * ENTRY.bytes
        multiply_few(matrix, row_address(matrix, head, begin), end - begin, entries, tokens, tokens, 0, memory)


@kernel
def head_pairs(rank, size, assignments, batch):
    """Row token * heads + head of every token, head by head."""
    tokens, heads = load_i64(batch + BATCH.tokens), load_i64(assignments + ASSIGNMENTS.experts)
    starts, pairs = load_i64(assignments + ASSIGNMENTS.starts), load_i64(assignments + ASSIGNMENTS.pairs)
    for head in range(start_of(rank, size, heads), start_of(rank + 1, size, heads)):
        store_i64(starts + 8 * head, head * tokens)
        for t in range(tokens):
            store_i64(pairs + 8 * (head * tokens + t), t * heads + head)
    if rank == 0:
        store_i64(starts + 8 * heads, heads * tokens)


def head_matmul(plan: Plan, x: Activation, w: ExpertMatrices, y: Activation, at: int = 0) -> None:
    """For each head: x [tokens * heads, k], w[head] [n, k] -> columns at to at + n of that head in y [tokens, heads * …]."""
    heads, width = w.count, y.columns // w.count
    if x.columns != w.columns or at + w.rows > width or x.tokens < heads * plan.tokens or width % 16:
        raise ValueError(f"{heads} heads: [{x.tokens}, {x.columns}] x [{w.rows}, {w.columns}] -> {y.columns}, at {at}")
    kind, out = w.format.activation, y.part(at, y.columns - at).read("f32")
    plan.keep(w)
    plan.weight_bytes += heads * w.bytes
    if plan.stepwise:
        matrix = plan.table(MATRIX, **few_operands(w))
        shares, scratch = shares_of(heads * w.bytes, plan.threads), plan.scratch(few_scratch_bytes([w], plan.tokens))
        rows = x.read(kind), x.stride(kind), out, 4 * width, y.stride("f32"), plan.rows
        plan.add(head_step, heads, matrix, *rows, *scratch, shares=shares)
        return
    assignments = plan.once(("head pairs", heads), lambda: _assignments(plan, heads))
    counter: Operand = plan.buffer("head counter", COUNTER_WORDS, np.int64) if kind == "q8" else 0
    source = input_table(plan, x, kind, f"heads {heads}", assignments, heads * plan.tokens, counter)
    operands = plan.table(MATRIX, **tile_operands(w)), assignments.table(plan), source, out, 4 * width, 0, counter
    plan.add(down_grouped, *operands, *plan.scratch(down_scratch(plan.tokens, w)))


def _assignments(plan: Plan, heads: int) -> Assignments:
    """Where each head's rows are, and a weight of 1 for each; found once a replay."""
    starts = plan.buffer("head starts", heads + 1, np.int64)
    pairs = plan.buffer("head pairs", heads * plan.tokens, np.int64)
    ones = np.ones(heads * plan.tokens, np.float32)
    assignments = Assignments(heads, 1, starts, pairs, ones, plan.tokens)
    plan.add(head_pairs, assignments.table(plan), plan.batch)
    return assignments
