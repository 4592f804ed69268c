"""Kimi Delta Attention (Kimi Linear, arXiv 2510.26692): DeltaNet whose state forgets each channel of the key by itself.

    S <- exp(g) o S, a row a channel;   delta = beta (v - S^T k);   S <- S + k delta^T;   o = S^T q

with g = a softplus(alpha + dt_bias), or the safe gate g = lower_bound sigmoid(a (alpha + dt_bias)), whose a is above 0.
All else is as in `delta_net`, which has the weights, too. This is a step of one token, or
of a few; for many see `kimi_delta_chunk`.
"""

from __future__ import annotations

import numpy as np

from quant.batch import BATCH, of_one_text, tokens_of
from quant.jit import inline, kernel
from quant.kernels.deferred import STATES, catch_up_part, defer, deferred_of, states_of, update_row
from quant.kernels.delta_net import DELTA_NET, DeltaNet
from quant.kernels.delta_net_step import (
    STEP_ROWS,
    finish_head,
    heads_of,
    items_of,
    predict,
    prepare_head,
    step_row,
    step_rows,
)
from quant.kernels.scalar import sigmoid1
from quant.plan import Activation, Plan
from quant.simd import (
    add,
    broadcast_f32,
    load_f32,
    load_f32x16,
    load_i64,
    maximum,
    mul,
    splat,
    store_f32,
    store_f32x16,
    sub,
    zero_f32x16,
)
from quant.vector_math import exp, sigmoid, softplus

_NOTHING = np.float32(1e-26)  # a decay below is 0: products of such numbers would be slow, and are lost in any sum


@inline
def channel_decays(net, alpha, head, decays):
    """exp(g) of each channel of a head's key -> decays float32 [key_dim]; alpha [value heads, key_dim] of one token."""
    key_dim, bound = load_i64(net + DELTA_NET.key_dim), load_f32(net + DELTA_NET.lower_bound)
    a, first = splat(load_f32(load_i64(net + DELTA_NET.a) + 4 * head)), 4 * head * key_dim
    dt_bias = load_i64(net + DELTA_NET.dt_bias) + first
    for c in range(0, 4 * key_dim, 64):
        x = add(load_f32x16(alpha + first + c), load_f32x16(dt_bias + c))
        g = mul(splat(bound), sigmoid(mul(a, x))) if bound < 0 else mul(a, softplus(x))
        store_f32x16(decays + c, maximum(sub(exp(g), splat(_NOTHING)), zero_f32x16()))


@inline
def _update(state, to, k, q, decays, key_dim, delta):
    """decays o S + k delta^T for 16 value columns -> `to`, which may be S; gives its product with q."""
    o0, o1, o2, o3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for i in range(0, key_dim, 4):
        p, r, at = state + 64 * i, to + 64 * i, 4 * i
        o0 = update_row(p, r, k + at, q + at, broadcast_f32(decays + at), delta, o0)
        o1 = update_row(p + 64, r + 64, k + at + 4, q + at + 4, broadcast_f32(decays + at + 4), delta, o1)
        o2 = update_row(p + 128, r + 128, k + at + 8, q + at + 8, broadcast_f32(decays + at + 8), delta, o2)
        o3 = update_row(p + 192, r + 192, k + at + 12, q + at + 12, broadcast_f32(decays + at + 12), delta, o3)
    return add(add(o0, o1), add(o2, o3))


@inline
def _step_head(net, rows, out, batch, head, first, end, local):
    """Tokens first to end, of one text, one after the other for a head; local: scratch memory, see `kimi_step`."""
    key_dim, value_dim = load_i64(net + DELTA_NET.key_dim), load_i64(net + DELTA_NET.value_dim)
    states, in_turn, place = load_i64(net + DELTA_NET.states), of_one_text(batch), head * value_dim
    key = 4 * key_dim
    first_q, row = local + 16 * key, 4 * key + 8 * value_dim + 64
    for t in range(first, end):
        q = first_q + (t - first) * row
        prepare_head(net, rows, t, head, 1, batch, q, q + key, q + 4 * key)
        channel_decays(net, step_row(rows, STEP_ROWS.alpha, t), head, q + 2 * key)
        store_f32(q + row - 64, sigmoid1(load_f32(step_row(rows, STEP_ROWS.beta, t) + 4 * head)))
        for c in range(0, key, 64):
            store_f32x16(q + 3 * key + c, mul(load_f32x16(q + key + c), load_f32x16(q + 2 * key + c)))
    for part in range(0, value_dim, 16):
        s = load_i64(states + STATES.state) + key * (place + part)
        catch_up_part(states, head, part, load_i64(batch + BATCH.deferred))
        for t in range(first, end):
            q = first_q + (t - first) * row
            v, strength = q + 4 * key + 4 * part, broadcast_f32(q + row - 64)
            before, after = states_of(states, s, batch, t, local)
            delta = mul(strength, sub(load_f32x16(v), predict(before, q + 3 * key, key_dim)))
            store_f32x16(v + 4 * value_dim, _update(before, after, q + key, q, q + 2 * key, key_dim, delta))
            if in_turn and t > 0:
                store_f32x16(deferred_of(states, t - 1, head) + key + 4 * part, delta)
    for t in range(first, end):
        q = first_q + (t - first) * row
        finish_head(net, rows, out, t, head, q + 4 * key + 4 * value_dim)
        if in_turn and t > 0:
            defer(states, t - 1, head, q + key, q + 2 * key)


@kernel
def kimi_step(rank, size, net, rows, out, batch, scratch, scratch_stride):
    """Each text's tokens one after the other, from convolution to gated norm -> out (an OUTPUT table).

    Threads share the heads of all texts, as in `delta_net_step`. Scratch memory: 16 columns of a state, then for each token
    of a text q, k, its decays, exp(g) o k, v, o and its beta.
    """
    begin, stop = items_of(rank, size, net, batch)
    for item in range(begin, stop):
        text, head, behind = heads_of(item, net)
        first, end = tokens_of(batch, text)
        for each in range(head, behind):
            _step_head(net, rows, out, batch, each, first, end, scratch + rank * scratch_stride)


def kimi_delta_step(
    plan: Plan,
    net: DeltaNet,
    mixed: Activation,
    z: Activation,
    beta: Activation,
    alpha: Activation,
    eps: float,
    out: Activation,
) -> None:
    """mixed [tokens, channels], z [tokens, value columns], beta [tokens, heads], alpha [tokens, heads * key_dim] -> out."""
    out.read("f32")  # the norm writes float32, from which the other layouts are made
    floats = 16 * net.key_dim + plan.batch.tokens_of_text(plan.tokens) * (4 * net.key_dim + 2 * net.value_dim + 16)
    rows = step_rows(plan, net, mixed, z, beta, alpha)
    plan.add(kimi_step, net.table(plan, eps), rows, plan.output(out), plan.batch, *plan.scratch(4 * floats))
