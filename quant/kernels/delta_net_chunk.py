"""Gated DeltaNet over many tokens, 64 at a time, as matrix products (Yang et al., arXiv 2412.06464, section 3).

With G the running sum of g in a chunk and S the state before it, the corrections D solve a triangular system

    D_t = beta_t (v_t - e^G_t S^T k_t) - beta_t sum over i < t of e^(G_t - G_i) (k_i . k_t) D_i
    o_t = e^G_t S^T q_t + sum over i <= t of e^(G_t - G_i) (k_i . q_t) D_i
    S  <- e^G_n S + sum of e^(G_n - G_i) k_i D_i^T

in which every exponent is at most 0. Threads share the value heads.
"""

from __future__ import annotations

import math

import numpy as np

from quant.activation import OUTPUT, quantize_row
from quant.batch import BATCH
from quant.jit import Kernel, inline, kernel
from quant.kernels.convolution import add_convolve_rows
from quant.kernels.deferred import STATES
from quant.kernels.delta_net import DELTA_NET, DeltaNet, gated_norm, l2_normalize, softplus
from quant.kernels.partition import start_of
from quant.kernels.scalar import sigmoid1
from quant.kernels.sgemm import sgemm, sgemm_kernel
from quant.layout import Layout
from quant.plan import Activation, Plan
from quant.simd import load_f32, load_f32x16, load_i64, mul, splat, store_f32, store_f32x16, sub, zero_f32x16
from quant.tile import transpose16
from quant.vector_math import exp

CHUNK = 64
_ROW = 4 * CHUNK  # bytes of a row of chunk x chunk scores
ROWS = Layout("qkv", "qkv_stride", "alpha", "alpha_stride", "beta", "beta_stride", "out", "out_stride", "product")
_SOLVE = 16  # rows of the triangular system solved one by one before they enter a product


@kernel
def l2_normalize_rows(rank, size, x, stride, key_heads, key_dim, batch):
    """l2-normalize q and k of every token in place, and multiply q by 1 / sqrt(key_dim); threads share (token, head)."""
    tokens, heads = load_i64(batch + BATCH.tokens), 2 * key_heads
    for item in range(start_of(rank, size, tokens * heads), start_of(rank + 1, size, tokens * heads)):
        t, head = item // heads, item % heads
        factor = np.float32(1) / np.float32(math.sqrt(np.float32(key_dim))) if head < key_heads else np.float32(1)
        l2_normalize(x + t * stride + 4 * head * key_dim, key_dim, factor)


@inline
def scale_row(x, width, factor):
    """x *= factor, float32 [width]."""
    for c in range(0, 4 * width, 64):
        store_f32x16(x + c, mul(load_f32x16(x + c), splat(factor)))


@inline
def copy_state(state, key_dim, value_dim, rows, back):
    """state [value / 16, key, 16] -> rows [key, value], or back."""
    for part in range(0, value_dim, 16):
        for i in range(key_dim):
            near, far = rows + 4 * (i * value_dim + part), state + 4 * (part * key_dim + 16 * i)
            if back:
                store_f32x16(far, load_f32x16(near))
            else:
                store_f32x16(near, load_f32x16(far))


@inline
def copy_keys(k, stride, count, width, keys, transposed):
    """The chunk's `count` keys, followed by zeros -> keys [64, width], transposed [width, 64]."""
    for t in range(CHUNK):
        for c in range(0, 4 * width, 64):
            store_f32x16(keys + 4 * t * width + c, load_f32x16(k + t * stride + c) if t < count else zero_f32x16())
    for t in range(0, CHUNK, 16):
        for c in range(0, width, 16):
            transpose16(keys + 4 * (t * width + c), 4 * width, transposed + 4 * (c * CHUNK + t), _ROW)


@inline
def weigh(products, sums, t, last, factor, scores):
    """Row t of scores = that of products * factor * e^(G_t - G_i) for i < last, 0 from there on.

    products and scores [64, 64] may be the same; sums: G.
    """
    row, now = scores + t * _ROW, splat(load_f32(sums + 4 * t))
    for i in range(0, _ROW, 64):
        weights = mul(splat(factor), exp(sub(now, load_f32x16(sums + i))))
        store_f32x16(row + i, mul(load_f32x16(products + t * _ROW + i), weights))
    for i in range(last, CHUNK):
        store_f32(row + 4 * i, np.float32(0))


@inline
def _solve(product, scores, d, count, width):
    """d <- (I - scores)^-1 d, scores strictly lower triangular; d float32 [count, width]."""
    for first in range(0, count, _SOLVE):
        last = min(first + _SOLVE, count)
        if first:
            sgemm(
                product,
                scores + first * _ROW,
                _ROW,
                d,
                4 * width,
                d + 4 * first * width,
                4 * width,
                last - first,
                width,
                first,
                True,
            )
        for t in range(first + 1, last):
            row, before = scores + t * _ROW + 4 * first, d + 4 * first * width
            sgemm(product, row, _ROW, before, 4 * width, d + 4 * t * width, 4 * width, 1, width, t - first, True)


@inline
def _gates(alpha, beta, stride, head, a, dt, count, sums, strengths):
    """G, the running sums of g, and the betas of a chunk of `count` tokens -> sums, strengths float32 [64]."""
    total = np.float32(0)
    for t in range(count):
        at = t * stride + 4 * head
        total += load_f32(a + 4 * head) * softplus(load_f32(alpha + at) + load_f32(dt + 4 * head))
        store_f32(sums + 4 * t, total)
        store_f32(strengths + 4 * t, sigmoid1(load_f32(beta + at)))
    for t in range(count, CHUNK):
        store_f32(sums + 4 * t, total)


@inline
def _chunk(product, q, k, v, o, stride, out_stride, count, key_dim, value_dim, memory):
    """One chunk of one head: reads q, k and v, writes o, updates the state.

    memory: the state [key, value], the sums of g and the betas of the chunk, float32 [64] each, then scratch memory.
    """
    s, sums = memory, memory + 4 * key_dim * value_dim
    strengths = sums + _ROW
    memory = strengths + _ROW
    keys, transposed = memory, memory + _ROW * key_dim
    d = transposed + _ROW * key_dim
    scores = d + _ROW * value_dim
    width = 4 * value_dim
    copy_keys(k, stride, count, key_dim, keys, transposed)
    sgemm(product, keys, 4 * key_dim, s, width, d, width, count, value_dim, key_dim, False)
    for t in range(count):
        decay, strength = np.float32(math.exp(load_f32(sums + 4 * t))), load_f32(strengths + 4 * t)
        for c in range(0, width, 64):
            error = sub(load_f32x16(v + t * stride + c), mul(splat(decay), load_f32x16(d + t * width + c)))
            store_f32x16(d + t * width + c, mul(splat(strength), error))
    sgemm(product, keys, 4 * key_dim, transposed, _ROW, scores, _ROW, count, CHUNK, key_dim, False)
    for t in range(count):
        weigh(scores, sums, t, t, -load_f32(strengths + 4 * t), scores)
    _solve(product, scores, d, count, value_dim)
    sgemm(product, q, stride, s, width, o, out_stride, count, value_dim, key_dim, False)
    sgemm(product, q, stride, transposed, _ROW, scores, _ROW, count, CHUNK, key_dim, False)
    for t in range(count):
        scale_row(o + t * out_stride, value_dim, np.float32(math.exp(load_f32(sums + 4 * t))))
        weigh(scores, sums, t, t + 1, np.float32(1), scores)
    sgemm(product, scores, _ROW, d, width, o, out_stride, count, value_dim, count, True)
    last = load_f32(sums + 4 * (count - 1))
    for t in range(count):
        scale_row(d + t * width, value_dim, np.float32(math.exp(last - load_f32(sums + 4 * t))))
    scale_row(s, key_dim * value_dim, np.float32(math.exp(last)))
    sgemm(product, transposed, _ROW, d, width, s, width, key_dim, value_dim, count, True)


@kernel
def delta_chunks(rank, size, net, rows, batch, scratch, scratch_stride):
    """q, k, v of every token -> out [tokens, value heads, value width], and the state after them; rows: a ROWS table."""
    tokens = load_i64(batch + BATCH.tokens)
    key_heads, value_heads = load_i64(net + DELTA_NET.key_heads), load_i64(net + DELTA_NET.value_heads)
    key_dim, value_dim = load_i64(net + DELTA_NET.key_dim), load_i64(net + DELTA_NET.value_dim)
    a, dt = load_i64(net + DELTA_NET.a), load_i64(net + DELTA_NET.dt_bias)
    state = load_i64(load_i64(net + DELTA_NET.states) + STATES.state)
    share = load_i64(net + DELTA_NET.share)
    x, stride = load_i64(rows + ROWS.qkv), load_i64(rows + ROWS.qkv_stride)
    out, out_stride = load_i64(rows + ROWS.out), load_i64(rows + ROWS.out_stride)
    alpha, beta = load_i64(rows + ROWS.alpha), load_i64(rows + ROWS.beta)
    gate_stride, product = load_i64(rows + ROWS.beta_stride), load_i64(rows + ROWS.product)
    keys = 4 * key_heads * key_dim
    s = scratch + rank * scratch_stride
    sums = s + 4 * key_dim * value_dim
    for head in range(start_of(rank, size, value_heads), start_of(rank + 1, size, value_heads)):
        own = state + 4 * head * key_dim * value_dim
        copy_state(own, key_dim, value_dim, s, False)
        q = x + 4 * (head // share % key_heads) * key_dim
        v = x + 2 * keys + 4 * head * value_dim
        o = out + 4 * head * value_dim
        for t in range(0, tokens, CHUNK):
            count = min(CHUNK, tokens - t)
            _gates(alpha + t * gate_stride, beta + t * gate_stride, gate_stride, head, a, dt, count, sums, sums + _ROW)
            at = t * stride
            k, y = q + keys + at, o + t * out_stride
            _chunk(product, q + at, k, v + at, y, stride, out_stride, count, key_dim, value_dim, s)
        copy_state(own, key_dim, value_dim, s, True)


@kernel
def gated_norm_rows(rank, size, net, o, z, stride, out, batch):
    """Each head of o [tokens, heads, width] normed and gated by z -> out (an OUTPUT table); threads share the tokens."""
    tokens = load_i64(batch + BATCH.tokens)
    heads, width = load_i64(net + DELTA_NET.value_heads), load_i64(net + DELTA_NET.value_dim)
    norm, eps = load_i64(net + DELTA_NET.norm), load_f32(net + DELTA_NET.eps)
    sigmoid_gate = load_i64(net + DELTA_NET.sigmoid_gate)
    y, q8, residual = load_i64(out + OUTPUT.f32), load_i64(out + OUTPUT.q8), load_i64(out + OUTPUT.residual)
    q8_stride = load_i64(out + OUTPUT.q8_stride)
    for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
        row = t * stride
        for head in range(heads):
            at = row + 4 * head * width
            gated_norm(o + at, z + at, norm, width, eps, sigmoid_gate, y + at)
        if q8:
            at = t * q8_stride
            quantize_row(y + row, heads * width, q8 + at, residual + at if residual else 0, 0, heads * width // 32)


def delta_net_chunk(
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
    floats = net.key_dim * net.value_dim + CHUNK * (2 + 2 * net.key_dim + net.value_dim + CHUNK)
    by_chunks(plan, net, delta_chunks, floats, mixed, z, beta, alpha, eps, out)


def by_chunks(
    plan: Plan,
    net: DeltaNet,
    chunks: Kernel,
    floats: int,
    mixed: Activation,
    z: Activation,
    beta: Activation,
    alpha: Activation,
    eps: float,
    out: Activation,
) -> None:
    """Convolution, the kernel `chunks` with a scratch memory of so many float32, and gated norm; see `delta_net_chunk`."""
    x, o = plan.activation("convolved", net.channels), plan.activation("delta", net.value_columns)
    out.read("f32")  # the norm writes float32, from which the other layouts are made
    table, rows, stride = net.table(plan, eps), x.read("f32"), x.stride("f32")
    add_convolve_rows(plan, net.convolution(plan), mixed, x)
    plan.add(l2_normalize_rows, rows, stride, net.key_heads, net.key_dim, plan.batch)
    chunk = plan.table(
        ROWS,
        qkv=rows,
        qkv_stride=stride,
        alpha=alpha.read("f32"),
        alpha_stride=alpha.stride("f32"),
        beta=beta.read("f32"),
        beta_stride=beta.stride("f32"),
        out=o.read("f32"),
        out_stride=o.stride("f32"),
        product=sgemm_kernel,
    )
    plan.add(chunks, table, chunk, plan.batch, *plan.scratch(4 * floats))
    plan.add(gated_norm_rows, table, o.read("f32"), z.read("f32"), o.stride("f32"), plan.output(out), plan.batch)
