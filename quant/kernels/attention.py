"""Attention with grouped key-value heads and a cache: queries and keys are normed and turned, meet, and may be gated.

Sums run over fixed blocks of positions whatever the number of threads, so one answer has one set of bits.
"""

from __future__ import annotations

from quant.activation import store_block
from quant.jit import inline, kernel
from quant.kernels.attend_tiles import attend_tiles
from quant.kernels.attend_token import attend_token
from quant.kernels.heads import (
    CONTEXT,
    K_ROW,
    K_SPAN,
    KEYS,
    Q_SPAN,
    Q_STEP,
    QUANTIZED,
    QUERIES,
    V_ROW,
    VALUE_WIDTH,
    WIDTH,
    Heads,
)
from quant.kernels.kv_cache import store_row
from quant.kernels.norm import inverse_rms
from quant.kernels.partition import start_of
from quant.kernels.rope import Rope, angles, rotate
from quant.kernels.sight import Sight
from quant.plan import Activation, Operand, Plan
from quant.simd import bits_to_f32, load_f32x16, load_i64, mul, sigmoid, splat, store_f32x16

__all__ = ["Heads", "attention"]


@inline
def _norm_head(row, step, head, width, span, weight, eps, y):
    """Head `head` of a row, `step` bytes a head -> y [width], normed over itself, over the whole row, or (span 0) not."""
    x = row + step * head
    if span == 0:
        for c in range(0, 4 * width, 64):
            store_f32x16(y + c, load_f32x16(x + c))
    else:
        before = 0 if span == width else 4 * width * head
        scale = splat(inverse_rms(x - before, span, eps))
        for c in range(0, 4 * width, 64):
            store_f32x16(y + c, mul(mul(load_f32x16(x + c), scale), load_f32x16(weight + before + c)))


@kernel
def norm_rope_store(
    rank, size, q, q_stride, k, k_stride, v, v_stride, heads, q_norm, k_norm, eps, turns, pairs, interleaved, out, out_stride,
    k_cache, v_cache, run, scratch, scratch_stride,
):  # fmt: skip
    """q [tokens, queries, (q, perhaps a gate), width], k, v [tokens, keys, …] -> out [tokens, queries, width] and the caches."""
    queries, keys, width = load_i64(heads + QUERIES), load_i64(heads + KEYS), load_i64(heads + WIDTH)
    values, context, quantized = load_i64(heads + VALUE_WIDTH), load_i64(heads + CONTEXT), load_i64(heads + QUANTIZED)
    tokens, position = load_i64(run), load_i64(run + 8)
    every, local = queries + keys, scratch + rank * scratch_stride
    for item in range(start_of(rank, size, tokens * every), start_of(rank + 1, size, tokens * every)):
        t, head = item // every, item % every
        angle = turns + t * pairs * 8
        if head < queries:
            y, span = out + t * out_stride + 4 * head * width, load_i64(heads + Q_SPAN)
            _norm_head(q + t * q_stride, load_i64(heads + Q_STEP), head, width, span, q_norm, bits_to_f32(eps), y)
            rotate(y, angle, pairs, interleaved)
        else:
            head -= queries
            place, span = head * context + position + t, load_i64(heads + K_SPAN)
            _norm_head(k + t * k_stride, 4 * width, head, width, span, k_norm, bits_to_f32(eps), local)
            rotate(local, angle, pairs, interleaved)
            store_row(local, width, k_cache + load_i64(heads + K_ROW) * place, quantized)
            row = v + t * v_stride + 4 * head * values
            store_row(row, values, v_cache + load_i64(heads + V_ROW) * place, quantized)


@inline
def _gated(x, gate, column, width):
    """16 columns, times sigmoid of theirs in [heads, (q, gate), width] unless there are none."""
    y = load_f32x16(x + 4 * column)
    if gate:
        y = mul(y, sigmoid(load_f32x16(gate + 4 * (column // width * 2 * width + width + column % width))))
    return y


@kernel
def finish_heads(rank, size, x, stride, gates, gates_stride, columns, width, y, q, rest, q_stride, run):
    """x [tokens, heads, width], perhaps gated -> y, q and rest; threads share (token, 32 columns)."""
    tokens, blocks = load_i64(run), columns // 32
    for item in range(start_of(rank, size, tokens * blocks), start_of(rank + 1, size, tokens * blocks)):
        t, block = item // blocks, item % blocks
        row, gate = x + t * stride, gates + t * gates_stride
        a, b = _gated(row, gate, 32 * block, width), _gated(row, gate, 32 * block + 16, width)
        at = t * q_stride
        store_block(a, b, columns, block, y + t * stride if y else 0, q + at if q else 0, rest + at if rest else 0)


def attention(
    plan: Plan, q: Activation, k: Activation, v: Activation, rope: Rope | None, heads: Heads, out: Activation,
    sight: Sight | None = None,
) -> None:  # fmt: skip
    """q [tokens, queries * width], or [tokens, queries, (q, gate), width], k and v [tokens, keys * …] -> out [tokens, …].

    Keys and values go into the caches at this replay's positions; without a rope nothing turns, without a sight all
    positions up to a token's are seen.
    """
    found = q.columns, k.columns, v.columns, out.columns
    columns, keys, values = heads.queries * heads.width, heads.keys * heads.width, heads.keys * heads.values
    met = plan.activation("attended", heads.queries * heads.values)
    pairs = len(rope.frequencies) if rope else 0
    if found != (columns * (2 if heads.gated else 1), keys, values, met.columns) or met.columns % 32:
        raise ValueError(f"{heads.queries} and {heads.keys} heads of {heads.width} and {heads.values}: {found} columns")
    if 2 * pairs > heads.width:
        raise ValueError(f"{pairs} pairs turn in heads of {heads.width}")
    ready, norms = plan.activation("query", columns), heads.norms or (0, 0)
    turning: tuple[Operand, ...] = (angles(plan, rope), pairs, int(rope.interleaved)) if rope else (0, 0, 0)
    plan.add(
        norm_rope_store, q.read("f32"), q.stride("f32"), k.read("f32"), k.stride("f32"), v.read("f32"), v.stride("f32"),
        heads.table, *norms, heads.eps, *turning, ready.read("f32"), ready.stride("f32"), heads.k_cache, heads.v_cache,
        plan.batch, *plan.scratch(4 * heads.width),
    )  # fmt: skip
    (attend_token if plan.tokens == 1 else attend_tiles)(plan, ready, heads, met, sight)
    gates = (q.read("f32"), q.stride("f32")) if heads.gated else (0, 0)
    plan.add(
        finish_heads, met.read("f32"), met.stride("f32"), *gates, met.columns, heads.values, out.written("f32"),
        out.written("q8"), out.written("residual"), out.stride("q8"), plan.batch,
    )  # fmt: skip
