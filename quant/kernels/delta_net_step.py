"""A step of Gated DeltaNet (see `delta_net`): one token, or a few one after the other, of which some may turn out to be wrong.

What tokens add to the states is deferred where they may be wrong: see `quant.kernels.deferred`.
"""

from __future__ import annotations

import math

import numpy as np

from quant.activation import quantize_row, row_addresses
from quant.batch import BATCH, of_one_text
from quant.jit import inline, kernel
from quant.kernels.convolution import convolve
from quant.kernels.deferred import STATES, catch_up_part, check_tokens, defer, deferred_of, states_of, update_state
from quant.kernels.delta_net import DELTA_NET, DeltaNet, gated_norm, l2_normalize, softplus
from quant.kernels.partition import start_of
from quant.kernels.scalar import sigmoid1
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import (
    add,
    broadcast_f32,
    fma,
    load_f32,
    load_f32x16,
    load_i64,
    mul,
    store_f32,
    store_f32x16,
    sub,
    zero_f32x16,
)

STEP_ROWS = Layout(  # of a few tokens: float32 rows, each with the bytes from one token's to the next
    "mixed", "mixed_stride", "z", "z_stride", "beta", "beta_stride", "alpha", "alpha_stride"
)  # fmt: skip


@inline
def step_row(rows, field, t):
    """Where the row of token t begins of a field of STEP_ROWS, given by its offset; its stride is the next field."""
    return load_i64(rows + field) + t * load_i64(rows + field + 8)


@inline
def predict(state, k, key_dim):
    """S^T k for 16 value columns; four sums in flight."""
    s0, s1, s2, s3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for i in range(0, key_dim, 4):
        p = state + 64 * i
        s0 = fma(broadcast_f32(k + 4 * i), load_f32x16(p), s0)
        s1 = fma(broadcast_f32(k + 4 * i + 4), load_f32x16(p + 64), s1)
        s2 = fma(broadcast_f32(k + 4 * i + 8), load_f32x16(p + 128), s2)
        s3 = fma(broadcast_f32(k + 4 * i + 12), load_f32x16(p + 192), s3)
    return add(add(s0, s1), add(s2, s3))


@inline
def prepare_head(net, rows, t, head, batch, q, k, v):
    """The convolution of token t's q, k and v for a value head, float32 [key_dim, key_dim, value_dim]; q and k normalized."""
    key_heads, share = load_i64(net + DELTA_NET.key_heads), load_i64(net + DELTA_NET.share)
    key_dim, value_dim = load_i64(net + DELTA_NET.key_dim), load_i64(net + DELTA_NET.value_dim)
    keys, key_head = key_heads * key_dim, head // share % key_heads
    conv, mixed, stride = (
        load_i64(net + DELTA_NET.conv),
        load_i64(rows + STEP_ROWS.mixed),
        load_i64(rows + STEP_ROWS.mixed_stride),
    )
    own = head == key_head * share
    for part in range(3):
        first, width = (
            (part * keys + key_head * key_dim, key_dim) if part < 2 else (2 * keys + head * value_dim, value_dim)
        )
        y, keep = (q if part == 0 else k if part == 1 else v), own or part == 2
        convolve(conv, mixed, stride, t, first, width, batch, keep, y)
    l2_normalize(q, key_dim, np.float32(1) / np.float32(math.sqrt(np.float32(key_dim))))
    l2_normalize(k, key_dim, np.float32(1))


@inline
def heads_of_share(rank, size, heads, width):
    """The first of a share's heads, and the last plus one: two together where these fill one block of 32 columns."""
    together = 2 if width % 32 else 1
    pairs = (heads + together - 1) // together
    return together * start_of(rank, size, pairs), min(heads, together * start_of(rank + 1, size, pairs))


@kernel
def delta_step(rank, size, net, rows, out, batch, scratch, scratch_stride):
    """Tokens one after the other, from convolution to gated norm -> out (an OUTPUT table); threads share the value heads.

    Scratch memory: 16 columns of a state, then for each token q, k, v, o, its decay and its beta.
    """
    tokens, in_turn = load_i64(batch + BATCH.tokens), of_one_text(batch)
    deferred, value_heads = load_i64(batch + BATCH.deferred), load_i64(net + DELTA_NET.value_heads)
    key_dim, value_dim = load_i64(net + DELTA_NET.key_dim), load_i64(net + DELTA_NET.value_dim)
    a, dt_bias, norm = load_i64(net + DELTA_NET.a), load_i64(net + DELTA_NET.dt_bias), load_i64(net + DELTA_NET.norm)
    eps, sigmoid_gate = load_f32(net + DELTA_NET.eps), load_i64(net + DELTA_NET.sigmoid_gate)
    states, local = load_i64(net + DELTA_NET.states), scratch + rank * scratch_stride
    state = load_i64(states + STATES.state)
    first_q, row = local + 64 * key_dim, 8 * (key_dim + value_dim) + 64
    first_head, last_head = heads_of_share(rank, size, value_heads, value_dim)
    for head in range(first_head, last_head):
        place = head * value_dim
        for t in range(tokens):
            q = first_q + t * row
            prepare_head(net, rows, t, head, batch, q, q + 4 * key_dim, q + 8 * key_dim)
            alpha = load_f32(step_row(rows, STEP_ROWS.alpha, t) + 4 * head)
            beta = load_f32(step_row(rows, STEP_ROWS.beta, t) + 4 * head)
            g = load_f32(a + 4 * head) * softplus(alpha + load_f32(dt_bias + 4 * head))
            store_f32(q + row - 64, np.float32(math.exp(g)))
            store_f32(q + row - 60, sigmoid1(beta))
        for part in range(0, value_dim, 16):
            s = state + 4 * key_dim * (place + part)
            catch_up_part(states, head, part, deferred)
            for t in range(tokens):
                q = first_q + t * row
                k, v = q + 4 * key_dim, q + 8 * key_dim + 4 * part
                before, after = states_of(states, s, batch, t, local)
                decay, strength = broadcast_f32(q + row - 64), broadcast_f32(q + row - 60)
                delta = mul(strength, sub(load_f32x16(v), mul(decay, predict(before, k, key_dim))))
                store_f32x16(v + 4 * value_dim, update_state(before, after, k, q, key_dim, decay, delta))
                if in_turn and t > 0:
                    store_f32x16(deferred_of(states, t - 1, head) + 4 * (key_dim + part), delta)
        for t in range(tokens):
            q = first_q + t * row
            y, q8, residual = row_addresses(out, t)
            z = step_row(rows, STEP_ROWS.z, t) + 4 * place
            gated_norm(q + 8 * key_dim + 4 * value_dim, z, norm, value_dim, eps, sigmoid_gate, y + 4 * place)
            if q8:
                quantize_row(y, value_heads * value_dim, q8, residual, place // 32, (place + value_dim) // 32)
            if in_turn and t > 0:
                defer(states, t - 1, head, q + 4 * key_dim, q + row - 64)


def delta_net_step(
    plan: Plan,
    net: DeltaNet,
    mixed: Activation,
    z: Activation,
    beta: Activation,
    alpha: Activation,
    eps: float,
    out: Activation,
) -> None:
    """mixed [tokens, channels], z [tokens, value columns], beta, alpha [tokens, value heads] -> out [tokens, value columns]."""
    out.read("f32")  # the norm writes float32, from which the other layouts are made
    floats = 16 * net.key_dim + plan.tokens * (2 * (net.key_dim + net.value_dim) + 16)
    rows = step_rows(plan, net, mixed, z, beta, alpha)
    plan.add(delta_step, net.table(plan, eps), rows, plan.output(out), plan.batch, *plan.scratch(4 * floats))


def step_rows(
    plan: Plan, net: DeltaNet, mixed: Activation, z: Activation, beta: Activation, alpha: Activation
) -> Operand:
    """The table of STEP_ROWS. Raises ValueError if the plan takes more tokens than the layer can defer."""
    check_tokens(plan, net.deferred)
    inputs = {"mixed": mixed, "z": z, "beta": beta, "alpha": alpha}
    strides = {f"{name}_stride": x.stride("f32") for name, x in inputs.items()}
    return plan.table(STEP_ROWS, **{name: x.read("f32") for name, x in inputs.items()}, **strides)
