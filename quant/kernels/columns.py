"""Columns of an activation cleared, quantized, or copied: of heads, beside others, or as one row a head.

The last is for a matrix of each head.
"""

from __future__ import annotations

from quant.activation import OUTPUT, row_addresses, store_block
from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.partition import start_of
from quant.plan import Activation, Operand, Plan
from quant.simd import load_f32x16, load_i64, store_f32x16, zero_f32x16


@inline
def _copy(x, columns, y):
    for c in range(0, 4 * columns, 64):
        store_f32x16(y + c, load_f32x16(x + c))


@kernel
def place_columns(rank, size, x, x_stride, x_step, heads, columns, y, y_stride, y_step, batch):
    """Copy float32 columns of every head of every token; a head begins `x_step` bytes after the last in x, `y_step` in y."""
    items = load_i64(batch + BATCH.tokens) * heads
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        t, head = item // heads, item % heads
        _copy(x + t * x_stride + head * x_step, columns, y + t * y_stride + head * y_step)


@kernel
def take_rows(rank, size, x, x_stride, x_step, heads, columns, out, batch):
    """The same -> row token * heads + head of an activation, in the layouts that are asked for."""
    items = load_i64(batch + BATCH.tokens) * heads if load_i64(out + OUTPUT.f32) or load_i64(out + OUTPUT.q8) else 0
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        row = x + item // heads * x_stride + item % heads * x_step
        y, q, residual = row_addresses(out, item)
        if y:
            _copy(row, columns, y)
        for block in range(columns // 32 if q else 0):
            a, b = load_f32x16(row + 128 * block), load_f32x16(row + 128 * block + 64)
            store_block(a, b, columns, block, 0, q, residual)


@kernel
def clear_rows(rank, size, x, stride, columns, batch):
    """x [tokens, columns] = 0, columns a multiple of 16; threads share the blocks of 16."""
    blocks = columns // 16
    items = load_i64(batch + BATCH.tokens) * blocks
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        store_f32x16(x + item // blocks * stride + item % blocks * 64, zero_f32x16())


def place(
    plan: Plan, x: Activation, heads: int, first: int, columns: int, y: Activation, at: int, *, shared: bool = False
) -> None:
    """Columns first to first + columns of each head of x -> columns from `at` on of each head of y, both float32.

    shared: x is one head, which all heads of y get.
    """
    step = 0 if shared else 4 * x.columns // heads
    if first + columns > (x.columns if shared else x.columns // heads) or at + columns > y.columns // heads:
        raise ValueError(f"{columns} columns of {heads} heads: {x.columns} from {first} on, {y.columns} from {at} on")
    source, target = _from(x, first), _from(y, at)
    steps = y.stride("f32"), 4 * y.columns // heads
    plan.add(place_columns, source, x.stride("f32"), step, heads, columns, target, *steps, plan.batch)


def rows_of_heads(plan: Plan, x: Activation, heads: int, first: int, columns: int, y: Activation) -> None:
    """Columns first to first + columns of each head of x [tokens, heads * …] -> y [tokens * heads, columns]."""
    if first + columns > x.columns // heads or y.columns != columns or y.tokens < plan.tokens * heads:
        raise ValueError(f"{columns} columns of {heads} heads: {x.columns} from {first} on, {y.columns}")
    source, step = _from(x, first), 4 * x.columns // heads
    plan.add(take_rows, source, x.stride("f32"), step, heads, columns, plan.output(y), plan.batch)


def quantize(plan: Plan, x: Activation) -> None:
    """The float32 rows of x in the other layouts that its readers ask for."""
    others = plan.table(
        OUTPUT, f32=0, f32_stride=0, q8=x.written("q8"), residual=x.written("residual"), q8_stride=x.stride("q8")
    )
    plan.add(take_rows, x.read("f32"), x.stride("f32"), 0, 1, x.columns, others, plan.batch)


def clear(plan: Plan, x: Activation) -> None:
    """x float32 [tokens, n] = 0, for who next adds to it; n a multiple of 16."""
    if x.columns % 16:
        raise ValueError(f"{x.columns} columns are no multiple of 16")
    plan.add(clear_rows, x.read("f32"), x.stride("f32"), x.columns, plan.batch)


def _from(x: Activation, column: int) -> Operand:
    """The rows from a column on."""
    return x.part(column, x.columns - column).read("f32")
