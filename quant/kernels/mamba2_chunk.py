"""Mamba 2 over many tokens, 64 at a time, as matrix products (Dao and Gu, arXiv 2405.21060, section 6).

With G the running sum of a dt in a chunk and S the state before it,

    S^T c of token t = e^G_t S^T c_t + sum over i <= t of e^(G_t - G_i) (b_i . c_t) dt_i x_i
    S <- e^G_n S + sum of e^(G_n - G_i) b_i dt_i x_i^T

in which every exponent is at most 0: a difference of sums that may be large, so these are kept as two float32 each. The
products b . c are made once for all heads of a group; threads share the heads.
"""

from __future__ import annotations

import math

import numpy as np

from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.convolution import add_convolve_rows
from quant.kernels.deferred import STATES
from quant.kernels.delta_net import softplus
from quant.kernels.delta_net_chunk import CHUNK, copy_keys, copy_state, scale_row, weigh
from quant.kernels.mamba2 import MAMBA2, Mamba2, add_norm_groups, gate_skip
from quant.kernels.partition import start_of
from quant.kernels.sgemm import sgemm, sgemm_kernel
from quant.layout import Layout
from quant.plan import Activation, Plan
from quant.simd import add, load_f32, load_f32x16, load_i64, mul, splat, store_f32, store_f32x16, sub

_ROW = 4 * CHUNK  # bytes of a row of chunk x chunk products
_ROWS = Layout("xbc", "stride", "z", "y", "y_stride", "dt", "dt_stride", "b", "products", "sgemm")


@kernel
def multiply_groups(rank, size, net, rows, batch, scratch, scratch_stride):
    """For each chunk and group: b transposed [state, 64], and c . b [64, 64]; threads share (chunk, group)."""
    tokens, groups = load_i64(batch + BATCH.tokens), load_i64(net + MAMBA2.groups)
    columns, width = load_i64(net + MAMBA2.heads) * load_i64(net + MAMBA2.width), load_i64(net + MAMBA2.state_width)
    x, stride, product = load_i64(rows + _ROWS.xbc), load_i64(rows + _ROWS.stride), load_i64(rows + _ROWS.sgemm)
    items, unused = (tokens + CHUNK - 1) // CHUNK * groups, scratch + rank * scratch_stride
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        first, group = item // groups * CHUNK, item % groups
        count = min(CHUNK, tokens - first)
        b = x + first * stride + 4 * (columns + group * width)
        transposed = load_i64(rows + _ROWS.b) + item * _ROW * width
        products = load_i64(rows + _ROWS.products) + item * _ROW * CHUNK
        copy_keys(b, stride, count, width, unused, transposed)
        sgemm(product, b + 4 * groups * width, stride, transposed, _ROW, products, _ROW, count, CHUNK, width, False)


@inline
def _sum_steps(dt, stride, head, a, dt_bias, count, steps, sums):
    """dt and the running sums of a dt of a chunk of `count` tokens -> steps float32 [64], sums float32 [2, 64].

    The second of the sums is what rounding took off the first.
    """
    total = np.float64(0)
    for t in range(CHUNK):
        if t < count:
            step = softplus(load_f32(dt + t * stride + 4 * head) + load_f32(dt_bias + 4 * head))
            total += np.float64(load_f32(a + 4 * head)) * np.float64(step)
            store_f32(steps + 4 * t, step)
        rounded = np.float32(total)
        store_f32(sums + 4 * t, rounded)
        store_f32(sums + _ROW + 4 * t, np.float32(total - np.float64(rounded)))


@inline
def _subtract(sums, t, since):
    """since [64] = the sums less that of token t."""
    now, rest = splat(load_f32(sums + 4 * t)), splat(load_f32(sums + _ROW + 4 * t))
    for i in range(0, _ROW, 64):
        coarse, fine = sub(load_f32x16(sums + i), now), sub(load_f32x16(sums + _ROW + i), rest)
        store_f32x16(since + i, add(coarse, fine))


@inline
def _chunk(product, x, c, stride, o, o_stride, b, products, count, state_width, width, skip, z, memory):
    """One chunk of one head: reads x, c, z and what `multiply_groups` left of b; writes o, updates the state.

    memory: the state [state, width], dt [64] and the sums of a dt of the chunk [2, 64], float32, then scratch memory.
    """
    s, row = memory, 4 * width
    steps = s + row * state_width
    sums = steps + _ROW
    since = sums + 2 * _ROW
    scores = since + _ROW
    d = scores + _ROW * CHUNK
    for t in range(count):
        step = splat(load_f32(steps + 4 * t))
        for i in range(0, row, 64):
            store_f32x16(d + t * row + i, mul(step, load_f32x16(x + t * stride + i)))
    sgemm(product, c, stride, s, row, o, o_stride, count, width, state_width, False)
    for t in range(count):
        scale_row(o + t * o_stride, width, np.float32(math.exp(load_f32(sums + 4 * t))))
        _subtract(sums, t, since)
        weigh(products, since, t, t + 1, np.float32(1), scores)
    sgemm(product, scores, _ROW, d, row, o, o_stride, count, width, count, True)
    for t in range(count):
        for i in range(0, row, 64):
            at = o + t * o_stride + i
            value = gate_skip(load_f32x16(at), skip, load_f32x16(x + t * stride + i), load_f32x16(z + t * o_stride + i))
            store_f32x16(at, value)
    _subtract(sums, count - 1, since)
    for t in range(count):
        scale_row(d + t * row, width, np.float32(math.exp(-load_f32(since + 4 * t))))
    scale_row(s, state_width * width, np.float32(math.exp(load_f32(sums + 4 * (count - 1)))))
    sgemm(product, b, _ROW, d, row, s, row, state_width, width, count, True)


@kernel
def mamba2_chunks(rank, size, net, rows, batch, scratch, scratch_stride):
    """x, c and z of every token -> y [tokens, columns], and the state after them; rows: a _ROWS table."""
    tokens = load_i64(batch + BATCH.tokens)
    heads, groups = load_i64(net + MAMBA2.heads), load_i64(net + MAMBA2.groups)
    width, state_width = load_i64(net + MAMBA2.width), load_i64(net + MAMBA2.state_width)
    a, d, dt_bias = load_i64(net + MAMBA2.a), load_i64(net + MAMBA2.d), load_i64(net + MAMBA2.dt_bias)
    xbc, stride, product = load_i64(rows + _ROWS.xbc), load_i64(rows + _ROWS.stride), load_i64(rows + _ROWS.sgemm)
    dt, dt_stride = load_i64(rows + _ROWS.dt), load_i64(rows + _ROWS.dt_stride)
    z, y, y_stride = load_i64(rows + _ROWS.z), load_i64(rows + _ROWS.y), load_i64(rows + _ROWS.y_stride)
    s = scratch + rank * scratch_stride
    steps = s + 4 * state_width * width
    for head in range(start_of(rank, size, heads), start_of(rank + 1, size, heads)):
        own, group, place = (
            load_i64(load_i64(net + MAMBA2.states) + STATES.state) + 4 * head * state_width * width,
            head // (heads // groups),
            4 * head * width,
        )
        copy_state(own, state_width, width, s, False)
        c = xbc + 4 * (heads * width + (groups + group) * state_width)
        for t in range(0, tokens, CHUNK):
            count, item = min(CHUNK, tokens - t), t // CHUNK * groups + group
            _sum_steps(dt + t * dt_stride, dt_stride, head, a, dt_bias, count, steps, steps + _ROW)
            b = load_i64(rows + _ROWS.b) + item * _ROW * state_width
            products = load_i64(rows + _ROWS.products) + item * _ROW * CHUNK
            x, o, gate = xbc + t * stride + place, y + t * y_stride + place, z + t * y_stride + place
            skip = load_f32(d + 4 * head)
            _chunk(
                product, x, c + t * stride, stride, o, y_stride, b, products, count, state_width, width, skip, gate, s
            )
        copy_state(own, state_width, width, s, True)


def mamba2_chunk(
    plan: Plan, net: Mamba2, mixed: Activation, z: Activation, dt: Activation, eps: float, out: Activation
) -> None:
    """mixed [tokens, channels], z [tokens, columns], dt [tokens, heads] -> out [tokens, columns]; eps: of the norm."""
    x, y = plan.activation("convolved", net.channels), plan.activation("mamba", net.columns)
    table, stride, items = net.table(plan), x.stride("f32"), -(-plan.tokens // CHUNK) * net.groups
    add_convolve_rows(plan, net.convolution(plan), mixed, x)
    rows = plan.table(
        _ROWS,
        xbc=x.read("f32"),
        stride=stride,
        z=z.read("f32"),
        y=y.read("f32"),
        y_stride=y.stride("f32"),
        dt=dt.read("f32"),
        dt_stride=dt.stride("f32"),
        b=plan.buffer("mamba b", (items, net.state_width, CHUNK), np.float32),
        products=plan.buffer("mamba products", (items, CHUNK, CHUNK), np.float32),
        sgemm=sgemm_kernel,
    )
    plan.add(multiply_groups, table, rows, plan.batch, *plan.scratch(_ROW * net.state_width))
    floats = net.state_width * net.width + CHUNK * (4 + CHUNK + net.width)
    plan.add(mamba2_chunks, table, rows, plan.batch, *plan.scratch(4 * floats))
    add_norm_groups(plan, net, y, eps, out)
