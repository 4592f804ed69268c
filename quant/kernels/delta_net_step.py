"""A step of Gated DeltaNet (see `delta_net`): one token, or a few one after the other, of which some may turn out to be wrong.

What tokens add to the states is deferred where they may be wrong: see `quant.kernels.deferred`.
"""

from __future__ import annotations

import math

import numpy as np

from quant.activation import quantize_row, row_addresses
from quant.batch import BATCH, of_one_text, texts_of, tokens_of
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
    """Where the row of token t begins of a field of a table like STEP_ROWS, given by its offset; the next field is its stride."""
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
def prepare_head(net, rows, t, head, new_key, batch, q, k, v):
    """The convolution of token t's q, k and v for a value head, float32 [key_dim, key_dim, value_dim]; q and k normalized.

    new_key: 0 if q and k are there already, from a head that shares them.
    """
    key_heads, share = load_i64(net + DELTA_NET.key_heads), load_i64(net + DELTA_NET.share)
    key_dim, value_dim = load_i64(net + DELTA_NET.key_dim), load_i64(net + DELTA_NET.value_dim)
    keys, key_head = key_heads * key_dim, head // share % key_heads
    conv, mixed, stride = (
        load_i64(net + DELTA_NET.conv),
        load_i64(rows + STEP_ROWS.mixed),
        load_i64(rows + STEP_ROWS.mixed_stride),
    )
    own = head == key_head * share
    for part in range(0 if new_key else 2, 3):
        first, width = (
            (part * keys + key_head * key_dim, key_dim) if part < 2 else (2 * keys + head * value_dim, value_dim)
        )
        y, keep = (q if part == 0 else k if part == 1 else v), own or part == 2
        convolve(conv, mixed, stride, t, first, width, batch, keep, y)
    if new_key:
        l2_normalize(q, key_dim, np.float32(1) / np.float32(math.sqrt(np.float32(key_dim))))
        l2_normalize(k, key_dim, np.float32(1))


@inline
def decay_and_strength(net, rows, t, head, to):
    """exp(g) and the sigmoid of beta of token t for a value head -> to, float32 [2]."""
    a, dt_bias = load_i64(net + DELTA_NET.a) + 4 * head, load_i64(net + DELTA_NET.dt_bias) + 4 * head
    g = load_f32(a) * softplus(load_f32(step_row(rows, STEP_ROWS.alpha, t) + 4 * head) + load_f32(dt_bias))
    store_f32(to, np.float32(math.exp(g)))
    store_f32(to + 4, sigmoid1(load_f32(step_row(rows, STEP_ROWS.beta, t) + 4 * head)))


@inline
def finish_head(net, rows, out, t, head, o):
    """The gated norm of what token t reads from a value head's state, o float32 [value_dim] -> its columns of out."""
    value_dim, norm = load_i64(net + DELTA_NET.value_dim), load_i64(net + DELTA_NET.norm)
    place, columns = head * value_dim, load_i64(net + DELTA_NET.value_heads) * value_dim
    eps, sigmoid_gate = load_f32(net + DELTA_NET.eps), load_i64(net + DELTA_NET.sigmoid_gate)
    y, q8, residual = row_addresses(out, t)
    gated_norm(o, step_row(rows, STEP_ROWS.z, t) + 4 * place, norm, value_dim, eps, sigmoid_gate, y + 4 * place)
    if q8:
        quantize_row(y, columns, q8, residual, place // 32, (place + value_dim) // 32)


@inline
def _step_head(net, rows, out, batch, head, new_key, first, end, local):
    """Tokens first to end, of one text, one after the other for a value head; local: scratch memory, see `delta_step`."""
    key_dim, value_dim = load_i64(net + DELTA_NET.key_dim), load_i64(net + DELTA_NET.value_dim)
    states, in_turn, place = load_i64(net + DELTA_NET.states), of_one_text(batch), head * value_dim
    first_q, row = local + 64 * key_dim, 8 * (key_dim + value_dim) + 64
    for t in range(first, end):
        q = first_q + (t - first) * row
        prepare_head(net, rows, t, head, new_key, batch, q, q + 4 * key_dim, q + 8 * key_dim)
        decay_and_strength(net, rows, t, head, q + row - 64)
    for part in range(0, value_dim, 16):
        s = load_i64(states + STATES.state) + 4 * key_dim * (place + part)
        catch_up_part(states, head, part, load_i64(batch + BATCH.deferred))
        for t in range(first, end):
            q = first_q + (t - first) * row
            k, v = q + 4 * key_dim, q + 8 * key_dim + 4 * part
            before, after = states_of(states, s, batch, t, local)
            decay, strength = broadcast_f32(q + row - 64), broadcast_f32(q + row - 60)
            delta = mul(strength, sub(load_f32x16(v), mul(decay, predict(before, k, key_dim))))
            store_f32x16(v + 4 * value_dim, update_state(before, after, k, q, key_dim, decay, delta))
            if in_turn and t > 0:
                store_f32x16(deferred_of(states, t - 1, head) + 4 * (key_dim + part), delta)
    for t in range(first, end):
        q = first_q + (t - first) * row
        finish_head(net, rows, out, t, head, q + 8 * key_dim + 4 * value_dim)
        if in_turn and t > 0:
            defer(states, t - 1, head, q + 4 * key_dim, q + row - 64)


@inline
def _units(net):
    """Into how many parts a text's value heads are cut, and how many are in one: two where these fill one block of 32 columns."""
    heads, some = load_i64(net + DELTA_NET.value_heads), 2 if load_i64(net + DELTA_NET.value_dim) % 32 else 1
    return (heads + some - 1) // some, some


@inline
def items_of(rank, size, net, batch):
    """A thread's share of the heads of all texts, from one item to before another; see `heads_of`."""
    items = texts_of(batch) * _units(net)[0]
    return start_of(rank, size, items), start_of(rank + 1, size, items)


@inline
def heads_of(item, net):
    """The text of an item, and its value heads, from one to before another; a text's are neighbours, as in memory."""
    units, some = _units(net)
    head = item % units * some
    return item // units, head, min(load_i64(net + DELTA_NET.value_heads), head + some)


@kernel
def delta_step(rank, size, net, rows, out, batch, scratch, scratch_stride):
    """Each text's tokens one after the other, from convolution to gated norm -> out (an OUTPUT table).

    Threads share the value heads of all texts. Scratch memory: 16 columns of a state, then for each token of a text q, k, v, o,
    its decay and its beta.
    """
    key_heads, share = load_i64(net + DELTA_NET.key_heads), load_i64(net + DELTA_NET.share)
    begin, stop = items_of(rank, size, net, batch)
    last = -1
    for item in range(begin, stop):
        text, head, behind = heads_of(item, net)
        first, end = tokens_of(batch, text)
        for each in range(head, behind):
            key = text * key_heads + each // share % key_heads
            _step_head(net, rows, out, batch, each, key != last, first, end, scratch + rank * scratch_stride)
            last = key


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
    floats = 16 * net.key_dim + plan.batch.tokens_of_text(plan.tokens) * (2 * (net.key_dim + net.value_dim) + 16)
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
