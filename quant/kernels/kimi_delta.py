"""Kimi Delta Attention (Kimi Linear, arXiv 2510.26692): DeltaNet whose state forgets each channel of the key by itself.

    S <- exp(g) o S, a row a channel;   delta = beta (v - S^T k);   S <- S + k delta^T;   o = S^T q

with g = a softplus(alpha + dt_bias), or the safe gate g = lower_bound sigmoid(a (alpha + dt_bias)), whose a is above 0.
All else is as in `delta_net`, which has the weights, too. This is a step of one token; for many see `kimi_delta_chunk`.
"""

from __future__ import annotations

import numpy as np

from quant.activation import OUTPUT, quantize_row
from quant.jit import inline, kernel
from quant.kernels.delta_net import DELTA_NET, DeltaNet, gated_norm, predict, prepare_head, update_row
from quant.kernels.partition import start_of
from quant.kernels.scalar import sigmoid1
from quant.plan import BATCH, Activation, Plan
from quant.simd import (
    add,
    broadcast_f32,
    load_f32,
    load_f32x16,
    load_i64,
    maximum,
    mul,
    splat,
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
def _update(state, k, q, decays, key_dim, delta):
    """S <- decays o S + k delta^T for 16 value columns; gives S^T q."""
    o0, o1, o2, o3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for i in range(0, key_dim, 4):
        p, at = state + 64 * i, 4 * i
        o0 = update_row(p, k + at, q + at, broadcast_f32(decays + at), delta, o0)
        o1 = update_row(p + 64, k + at + 4, q + at + 4, broadcast_f32(decays + at + 4), delta, o1)
        o2 = update_row(p + 128, k + at + 8, q + at + 8, broadcast_f32(decays + at + 8), delta, o2)
        o3 = update_row(p + 192, k + at + 12, q + at + 12, broadcast_f32(decays + at + 12), delta, o3)
    return add(add(o0, o1), add(o2, o3))


@kernel
def kimi_step(rank, size, net, mixed, z, beta, alpha, out, batch, scratch, scratch_stride):
    """One token, from convolution to gated norm -> out (an OUTPUT table); threads share the heads."""
    position, heads = load_i64(batch + BATCH.position), load_i64(net + DELTA_NET.value_heads)
    key_dim, value_dim = load_i64(net + DELTA_NET.key_dim), load_i64(net + DELTA_NET.value_dim)
    norm, eps = load_i64(net + DELTA_NET.norm), load_f32(net + DELTA_NET.eps)
    state, sigmoid_gate = load_i64(net + DELTA_NET.state), load_i64(net + DELTA_NET.sigmoid_gate)
    y, q8, residual = load_i64(out + OUTPUT.f32), load_i64(out + OUTPUT.q8), load_i64(out + OUTPUT.residual)
    q = scratch + rank * scratch_stride
    k = q + 4 * key_dim
    decays = k + 4 * key_dim
    kept = decays + 4 * key_dim  # exp(g) o k
    v = kept + 4 * key_dim
    o = v + 4 * value_dim
    for head in range(start_of(rank, size, heads), start_of(rank + 1, size, heads)):
        prepare_head(net, mixed, head, position, q, k, v)
        channel_decays(net, alpha, head, decays)
        for c in range(0, 4 * key_dim, 64):
            store_f32x16(kept + c, mul(load_f32x16(k + c), load_f32x16(decays + c)))
        place, strength = head * value_dim, splat(sigmoid1(load_f32(beta + 4 * head)))
        for part in range(0, value_dim, 16):
            s = state + 4 * key_dim * (place + part)
            delta = mul(strength, sub(load_f32x16(v + 4 * part), predict(s, kept, key_dim)))
            store_f32x16(o + 4 * part, _update(s, k, q, decays, key_dim, delta))
        gated_norm(o, z + 4 * place, norm, value_dim, eps, sigmoid_gate, y + 4 * place)
        if q8:
            quantize_row(y, heads * value_dim, q8, residual, place // 32, (place + value_dim) // 32)


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
    """mixed [1, channels], z [1, value columns], beta [1, heads], alpha [1, heads * key_dim] -> out [1, value columns]."""
    out.read("f32")  # the norm writes float32, from which the other layouts are made
    scratch = plan.scratch(4 * (4 * net.key_dim + 2 * net.value_dim))
    rows = mixed.read("f32"), z.read("f32"), beta.read("f32"), alpha.read("f32")
    plan.add(kimi_step, net.table(plan, eps), *rows, plan.output(out), plan.batch, *scratch)
