"""Attention with grouped key-value heads (GQA) and a cache: norms and RoPE of queries and keys, softmax, and gates.

Sums run over fixed blocks of positions whatever the number of threads, so that results do not depend on it.
"""

from __future__ import annotations

from quant.activation import store_output
from quant.batch import BATCH, position_of
from quant.jit import inline, kernel
from quant.kernels.attend_tiles import attend_tiles
from quant.kernels.attend_token import attend_token
from quant.kernels.block_mask import BlockMask
from quant.kernels.heads import HEADS, Heads, caches_of, shape_of, slots_of
from quant.kernels.kv_cache import number_of_values, store_row
from quant.kernels.norm import inverse_rms
from quant.kernels.partition import start_of
from quant.kernels.rope import Rope, cos_sin, rotate
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import load_f32, load_f32x16, load_i64, mul, splat, store_f32x16, store_i64
from quant.vector_math import sigmoid

__all__ = ["Heads", "attention"]

# Rows of every token, float32, and bytes from one token's to the next: q, k and v as they come (k is 0 where there are no
# new ones), and queries, normed and rotated; cos_sin [tokens, (cos, sin), pairs] or 0.
_INPUTS = Layout(
    "q", "q_stride", "k", "k_stride", "v", "v_stride", "cos_sin", "pairs", "interleaved", "queries", "queries_stride"
)


@inline
def _norm_head(row, step, head, width, span, weight, eps, y):
    """Head `head` of a row, `step` bytes a head -> y [width], normed over `span` values: itself, the whole row, or (0) not."""
    x = row + step * head
    if span == 0:
        for c in range(0, 4 * width, 64):
            store_f32x16(y + c, load_f32x16(x + c))
    else:
        before = 0 if span == width else 4 * width * head
        scale = splat(inverse_rms(x - before, span, eps))
        for c in range(0, 4 * width, 64):
            store_f32x16(y + c, mul(mul(load_f32x16(x + c), scale), load_f32x16(weight + before + c)))


@inline
def _prepare_head(row, step, head, span, weight, heads, rotation, pairs, interleaved, y):
    """Head `head` of a row of queries or keys -> y [head_dim], normed and rotated in the order that `heads` says."""
    width, eps, last = (
        load_i64(heads + HEADS.head_dim),
        load_f32(heads + HEADS.eps),
        load_i64(heads + HEADS.normed_last),
    )
    _norm_head(row, step, head, width, 0 if last else span, weight, eps, y)
    rotate(y, rotation, pairs, interleaved)
    if last:
        _norm_head(y, 0, 0, width, span, weight, eps, y)


@kernel
def norm_rope_store(rank, size, heads, inputs, batch, scratch, scratch_stride):
    """Norm and rotate queries and keys, norm values; keys and values go into the caches. Threads share (token, head).

    q [tokens, query heads, (q, perhaps a gate)], k, v [tokens, key-value heads, …] -> queries [tokens, query heads, head_dim].
    """
    keys, group, width, values = shape_of(heads)
    k_cache, v_cache, k_row, v_row, rows, kind = caches_of(heads)
    queries = keys * group
    pairs, interleaved = load_i64(inputs + _INPUTS.pairs), load_i64(inputs + _INPUTS.interleaved)
    tokens = load_i64(batch + BATCH.tokens)
    if rank == 0:
        store_i64(load_i64(heads + HEADS.taken), 0)  # none, as `attend_tiles_rows` begins
    every, local = queries + (keys if load_i64(inputs + _INPUTS.k) else 0), scratch + rank * scratch_stride
    for item in range(start_of(rank, size, tokens * every), start_of(rank + 1, size, tokens * every)):
        t, head = item // every, item % every
        rotation = load_i64(inputs + _INPUTS.cos_sin) + t * pairs * 8
        if head < queries:
            row = load_i64(inputs + _INPUTS.q) + t * load_i64(inputs + _INPUTS.q_stride)
            y = load_i64(inputs + _INPUTS.queries) + t * load_i64(inputs + _INPUTS.queries_stride) + 4 * head * width
            step, span = load_i64(heads + HEADS.q_step), load_i64(heads + HEADS.q_span)
            norm = load_i64(heads + HEADS.q_norm)
            _prepare_head(row, step, head, span, norm, heads, rotation, pairs, interleaved, y)
        else:
            head -= queries
            place, (k_slot, v_slot) = head * rows + position_of(batch, t) % rows, slots_of(heads, batch, t)
            row = load_i64(inputs + _INPUTS.k) + t * load_i64(inputs + _INPUTS.k_stride)
            span, norm = load_i64(heads + HEADS.k_span), load_i64(heads + HEADS.k_norm)
            _prepare_head(row, 4 * width, head, span, norm, heads, rotation, pairs, interleaved, local)
            store_row(local, width, k_cache + k_slot + k_row * place, kind)
            row = load_i64(inputs + _INPUTS.v) + t * load_i64(inputs + _INPUTS.v_stride) + 4 * head * values
            norm = load_i64(heads + HEADS.v_norm)
            if norm:
                _norm_head(row, 0, 0, values, values, norm, load_f32(heads + HEADS.eps), local)
                row = local
            store_row(row, values, v_cache + v_slot + v_row * place, number_of_values(kind))


@inline
def _gated(x, gate, apart, column, width):
    """16 columns of x [heads, width], times sigmoid of their gates unless gate is 0.

    Gates are [heads, width], `apart`, or behind each query: [heads, (q, gate), width].
    """
    y = load_f32x16(x + 4 * column)
    if gate:
        at = column if apart else column // width * 2 * width + width + column % width
        y = mul(y, sigmoid(load_f32x16(gate + 4 * at)))
    return y


@kernel
def finish_heads(rank, size, x, stride, gates, gates_stride, apart, columns, width, out, batch):
    """x [tokens, heads, width], gated unless gates is 0 -> out (an OUTPUT table); threads share (token, 32 columns)."""
    tokens, blocks = load_i64(batch + BATCH.tokens), columns // 32
    for item in range(start_of(rank, size, tokens * blocks), start_of(rank + 1, size, tokens * blocks)):
        t, block = item // blocks, item % blocks
        row, gate = x + t * stride, gates + t * gates_stride
        a, b = (_gated(row, gate, apart, 32 * block, width), _gated(row, gate, apart, 32 * block + 16, width))
        store_output(a, b, columns, block, out, t)


def attention(
    plan: Plan, q: Activation, k: Activation | None, v: Activation | None, rope: Rope | None, heads: Heads, out: Activation,
    mask: BlockMask | None = None, gates: Activation | None = None,
) -> None:  # fmt: skip
    """Attention of q, with new keys k and values v, to all that the caches hold -> out [tokens, query heads * value_dim].

    q [tokens, query heads * head_dim], or where heads are gated [tokens, query heads, (q, gate), head_dim]; k [tokens,
    key-value heads * head_dim], v [tokens, key-value heads * value_dim] go into the caches at this replay's positions;
    without them the caches are another layer's, which comes before this one. Nothing is rotated without a rope; without a
    mask tokens attend to all positions up to theirs, within the window. gates [tokens, query heads * value_dim]: outputs
    are multiplied by their sigmoids.
    """
    columns, attended = (
        heads.query_heads * heads.head_dim,
        plan.activation("attended", heads.query_heads * heads.value_dim),
    )
    k_columns, v_columns = (heads.key_value_heads * width for width in (heads.head_dim, heads.value_dim))
    pairs = len(rope.frequencies) if rope else 0
    found = [x.columns for x in (q, k, v, out) if x]
    new = (k_columns, v_columns) if k and v else ()
    if found != [columns * (2 if heads.gated else 1), *new, attended.columns] or attended.columns % 32:
        counts = f"{heads.query_heads} and {heads.key_value_heads} heads"
        raise ValueError(f"{counts} of {heads.head_dim} and {heads.value_dim}: {found} columns")
    if gates is not None and (heads.gated or gates.columns != attended.columns):
        raise ValueError(f"{gates.columns} gates for {attended.columns} columns")
    if 2 * pairs > heads.head_dim:
        raise ValueError(f"{pairs} pairs of values are rotated in heads of {heads.head_dim}")
    table, queries = heads.table(plan), plan.activation("query", columns)
    inputs = plan.table(
        _INPUTS,
        q=q.read("f32"),
        q_stride=q.stride("f32"),
        k=k.read("f32") if k else 0,
        k_stride=k.stride("f32") if k else 0,
        v=v.read("f32") if v else 0,
        v_stride=v.stride("f32") if v else 0,
        cos_sin=cos_sin(plan, rope) if rope else 0,
        pairs=pairs,
        interleaved=int(rope.interleaved) if rope else 0,
        queries=queries.read("f32"),
        queries_stride=queries.stride("f32"),
    )
    plan.add(norm_rope_store, table, inputs, plan.batch, *plan.scratch(4 * max(heads.head_dim, heads.value_dim)))
    (attend_token if plan.stepwise else attend_tiles)(plan, queries, heads, table, attended, mask)
    source = q if heads.gated else gates
    gate: tuple[Operand, Operand] = (source.read("f32"), source.stride("f32")) if source else (0, 0)
    rows, shape = (attended.read("f32"), attended.stride("f32")), (attended.columns, heads.value_dim)
    plan.add(finish_heads, *rows, *gate, int(gates is not None), *shape, plan.output(out), plan.batch)
