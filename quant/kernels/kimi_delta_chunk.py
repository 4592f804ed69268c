"""Kimi Delta Attention over many tokens, 16 at a time, as matrix products (Kimi Linear, arXiv 2510.26692, section 3).

With P_t the product of the decays exp(g) of tokens 1 to t in a chunk, channel by channel, P_t / P_i that of tokens i + 1 to
t, and S the state before the chunk, the corrections D solve a triangular system

    D_t = beta_t (v_t - S^T (P_t o k_t)) - beta_t sum over i < t of <k_t, P_t / P_i o k_i> D_i
    o_t = S^T (P_t o q_t) + sum over i <= t of <q_t, P_t / P_i o k_i> D_i
    S  <- P_n o S + sum of (P_n / P_i o k_i) D_i^T

Nothing is divided: P_t / P_i is made by multiplying on, decay by decay, so that every factor is at most 1 whatever the
decays are. That takes a step a pair of tokens, which is why chunks are small. Threads share the heads.
"""

from __future__ import annotations

import numpy as np

from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.deferred import STATES
from quant.kernels.delta_net import DELTA_NET, DeltaNet
from quant.kernels.delta_net_chunk import ROWS, by_chunks, copy_state
from quant.kernels.kimi_delta import channel_decays
from quant.kernels.partition import start_of
from quant.kernels.scalar import sigmoid1
from quant.kernels.sgemm import sgemm
from quant.plan import Activation, Plan
from quant.simd import (
    broadcast_f32,
    fma,
    load_f32,
    load_f32x16,
    load_i64,
    mul,
    splat,
    store_f32,
    store_f32x16,
    sub,
    sum_lanes,
    zero_f32x16,
)
from quant.tile import transpose16

_CHUNK = 16
_ROW = 4 * _CHUNK  # bytes of a row of chunk x chunk scores


@inline
def _decayed(q, k, stride, decays, count, width, kept_q, kept_k):
    """P_t o q_t and P_t o k_t of every token -> kept_q, kept_k [16, width]; decays [16, width]; row 0 of it becomes P_n."""
    for c in range(0, 4 * width, 64):
        product = load_f32x16(decays + c)
        for t in range(count):
            at = 4 * t * width + c
            product = mul(product, load_f32x16(decays + at)) if t else product
            store_f32x16(kept_q + at, mul(product, load_f32x16(q + t * stride + c)))
            store_f32x16(kept_k + at, mul(product, load_f32x16(k + t * stride + c)))
        store_f32x16(decays + c, product)  # the decay of token 0 is in no P_t / P_i


@inline
def _scores(q, k, stride, strengths, decays, count, width, left, among_k, among_q):
    """The scores of every pair of tokens -> among_k (-beta_t <k_t, …>) and among_q (<q_t, …>), both [16, 16], 0 for i > t.

    left: P_n / P_i o k_i of every token i, [16, width].
    """
    for i in range(count):
        w = left + 4 * i * width
        for t in range(i):
            store_f32(among_q + t * _ROW + 4 * i, np.float32(0))
        for t in range(i, count):
            by_k, by_q = zero_f32x16(), zero_f32x16()
            for c in range(0, 4 * width, 64):
                x = load_f32x16(k + i * stride + c)
                if t > i:
                    x = mul(load_f32x16(w + c), load_f32x16(decays + 4 * t * width + c))
                store_f32x16(w + c, x)
                by_k = fma(load_f32x16(k + t * stride + c), x, by_k)
                by_q = fma(load_f32x16(q + t * stride + c), x, by_q)
            store_f32(among_k + t * _ROW + 4 * i, -load_f32(strengths + 4 * t) * sum_lanes(by_k))
            store_f32(among_q + t * _ROW + 4 * i, sum_lanes(by_q))


@inline
def _correct(product, v, stride, strengths, scores, d, count, width):
    """d <- the corrections, float32 [count, width], where d is what the state before the chunk predicts."""
    for t in range(count):
        row, strength = d + 4 * t * width, splat(load_f32(strengths + 4 * t))
        for c in range(0, 4 * width, 64):
            store_f32x16(row + c, mul(strength, sub(load_f32x16(v + t * stride + c), load_f32x16(row + c))))
        sgemm(product, scores + t * _ROW, _ROW, d, 4 * width, row, 4 * width, 1, width, t, True)


@inline
def _forget(s, decays, key_dim, value_dim):
    """S <- decays o S, float32 [key_dim, value_dim]."""
    for i in range(key_dim):
        for c in range(4 * i * value_dim, 4 * (i + 1) * value_dim, 64):
            store_f32x16(s + c, mul(load_f32x16(s + c), broadcast_f32(decays + 4 * i)))


@inline
def _chunk(product, q, k, v, o, stride, out_stride, count, key_dim, value_dim, memory):
    """One chunk of one head: reads q, k and v, writes o, updates the state.

    memory: the state [key, value], the decays [16, key] and the betas [16] of the chunk, then scratch memory.
    """
    s, decays, width = memory, memory + 4 * key_dim * value_dim, 4 * value_dim
    rows = _ROW * key_dim
    strengths = decays + rows
    among_k, among_q = strengths + _ROW, strengths + _ROW + _CHUNK * _ROW
    kept_q = among_q + _CHUNK * _ROW
    kept_k, left, transposed = kept_q + rows, kept_q + 2 * rows, kept_q + 3 * rows
    d = kept_q + 4 * rows
    _scores(q, k, stride, strengths, decays, count, key_dim, left, among_k, among_q)
    _decayed(q, k, stride, decays, count, key_dim, kept_q, kept_k)
    sgemm(product, kept_k, 4 * key_dim, s, width, d, width, count, value_dim, key_dim, False)
    _correct(product, v, stride, strengths, among_k, d, count, value_dim)
    sgemm(product, kept_q, 4 * key_dim, s, width, o, out_stride, count, value_dim, key_dim, False)
    sgemm(product, among_q, _ROW, d, width, o, out_stride, count, value_dim, count, True)
    _forget(s, decays, key_dim, value_dim)
    for c in range(0, key_dim, 16):
        transpose16(left + 4 * c, 4 * key_dim, transposed + c * _ROW, _ROW)
    sgemm(product, transposed, _ROW, d, width, s, width, key_dim, value_dim, count, True)


@kernel
def kimi_chunks(rank, size, net, rows, batch, scratch, scratch_stride):
    """q, k, v of every token -> out [tokens, heads, value width], and the state after them; rows: a ROWS table."""
    tokens, heads = load_i64(batch + BATCH.tokens), load_i64(net + DELTA_NET.value_heads)
    key_heads, share = load_i64(net + DELTA_NET.key_heads), load_i64(net + DELTA_NET.share)
    key_dim, value_dim = load_i64(net + DELTA_NET.key_dim), load_i64(net + DELTA_NET.value_dim)
    x, stride = load_i64(rows + ROWS.qkv), load_i64(rows + ROWS.qkv_stride)
    out, out_stride = load_i64(rows + ROWS.out), load_i64(rows + ROWS.out_stride)
    alpha, alpha_stride = load_i64(rows + ROWS.alpha), load_i64(rows + ROWS.alpha_stride)
    beta, beta_stride = load_i64(rows + ROWS.beta), load_i64(rows + ROWS.beta_stride)
    product, keys = load_i64(rows + ROWS.product), 4 * key_heads * key_dim
    s = scratch + rank * scratch_stride
    decays = s + 4 * key_dim * value_dim
    for head in range(start_of(rank, size, heads), start_of(rank + 1, size, heads)):
        own = load_i64(load_i64(net + DELTA_NET.states) + STATES.state) + 4 * head * key_dim * value_dim
        copy_state(own, key_dim, value_dim, s, False)
        q = x + 4 * (head // share % key_heads) * key_dim
        v, o = x + 2 * keys + 4 * head * value_dim, out + 4 * head * value_dim
        for first in range(0, tokens, _CHUNK):
            count = min(_CHUNK, tokens - first)
            for t in range(count):
                channel_decays(net, alpha + (first + t) * alpha_stride, head, decays + 4 * t * key_dim)
                strength = sigmoid1(load_f32(beta + (first + t) * beta_stride + 4 * head))
                store_f32(decays + _ROW * key_dim + 4 * t, strength)
            at, y = first * stride, o + first * out_stride
            _chunk(product, q + at, q + keys + at, v + at, y, stride, out_stride, count, key_dim, value_dim, s)
        copy_state(own, key_dim, value_dim, s, True)


def kimi_delta_chunk(
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
    floats = net.key_dim * net.value_dim + _CHUNK * (1 + 2 * _CHUNK + 5 * net.key_dim + net.value_dim)
    by_chunks(plan, net, kimi_chunks, floats, mixed, z, beta, alpha, eps, out)
