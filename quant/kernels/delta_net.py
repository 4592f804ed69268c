"""Gated DeltaNet (Yang, Kautz and Hatamizadeh, arXiv 2412.06464): a short convolution, then a state S [key, value] of each head.

    S <- exp(g) S;   delta = beta (v - S^T k);   S <- S + k delta^T;   o = S^T q

with g = a softplus(alpha + dt_bias), and q, k l2-normalized. This is a step of one token; for many see `delta_net_chunk`.
Where every channel of the key has a g of its own (Kimi Delta Attention), see `kimi_delta` and `kimi_delta_chunk`.
The state of a head is stored as [value / 16, key, 16], so that a step reads it from its first byte to its last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.activation import OUTPUT, quantize_row
from quant.jit import inline, kernel
from quant.kernels.norm import inverse_rms
from quant.kernels.partition import start_of
from quant.kernels.scalar import sigmoid1
from quant.layout import Layout
from quant.plan import BATCH, Activation, Operand, Plan
from quant.simd import (
    add,
    broadcast_f32,
    fma,
    load_f32,
    load_f32x16,
    load_i64,
    mul,
    splat,
    store_f32x16,
    sub,
    sum_lanes,
    zero_f32x16,
)
from quant.vector_math import sigmoid, silu

L2_EPS = np.float32(1e-6)
DELTA_NET = Layout(
    "key_heads", "value_heads", "key_dim", "value_dim", "share", "conv", "taps", "conv_state", "a", "dt_bias", "norm", "eps",
    "sigmoid_gate", "state", "lower_bound",
)  # fmt: skip


@dataclass(frozen=True)
class DeltaNet:
    """The weights and state of one layer's heads; channels are q (all key heads), k, then v (all value heads).

    conv float32 [taps, channels]; a, dt_bias float32 [value heads]; norm float32 [value_dim];
    dt_bias [value heads, key_dim] where every channel of the key has a decay of its own, and then lower_bound, if below 0:
    the decay is g = lower_bound sigmoid(a (alpha + dt_bias)).
    conv_state float32 [taps, channels]: the last inputs, that of position p in row p % taps;
    state float32 [value heads, value_dim / 16, key_dim, 16].
    sigmoid_gate: outputs are gated by sigmoid(z), not silu(z). A value head j uses key head j // share % key heads.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    share: int
    conv: NDArray[np.float32]
    a: NDArray[np.float32]
    dt_bias: NDArray[np.float32]
    norm: NDArray[np.float32]
    conv_state: NDArray[np.float32]
    state: NDArray[np.float32]
    sigmoid_gate: bool = False
    lower_bound: float = 0.0

    def __post_init__(self) -> None:
        state = (self.value_heads, self.value_dim // 16, self.key_dim, 16)
        if self.conv.shape[1] != self.channels or self.conv_state.shape != self.conv.shape or self.state.shape != state:
            raise ValueError(f"{self.channels} channels: conv {self.conv.shape}, state {self.state.shape}")
        if self.key_dim % 16 or self.value_dim % 16 or self.norm.shape != (self.value_dim,):
            raise ValueError(f"heads of {self.key_dim} and {self.value_dim}: kernels need multiples of 16")
        biases = (self.value_heads,), (self.value_heads, self.key_dim)
        if self.a.shape != (self.value_heads,) or self.dt_bias.shape not in biases:
            raise ValueError(f"{self.value_heads} value heads: a {self.a.shape}, dt {self.dt_bias.shape}")

    @property
    def channels(self) -> int:
        """Columns of q, k and v together."""
        return 2 * self.key_heads * self.key_dim + self.value_columns

    @property
    def value_columns(self) -> int:
        """Columns of v, and of the outputs."""
        return self.value_heads * self.value_dim

    def table(self, plan: Plan, eps: float) -> Operand:
        """The table of this layer, by which kernels know it; eps: of the norm of the outputs."""
        return plan.table(
            DELTA_NET,
            key_heads=self.key_heads,
            value_heads=self.value_heads,
            key_dim=self.key_dim,
            value_dim=self.value_dim,
            share=self.share,
            conv=self.conv,
            taps=len(self.conv),
            conv_state=self.conv_state,
            a=self.a,
            dt_bias=self.dt_bias,
            norm=self.norm,
            eps=eps,
            sigmoid_gate=int(self.sigmoid_gate),
            state=self.state,
            lower_bound=float(self.lower_bound),
        )


@inline
def softplus(x):
    """log(1 + exp(x)) of a float32."""
    return x if x > np.float32(20) else np.float32(math.log1p(math.exp(x)))


@inline
def l2_normalize(x, width, factor):
    """x <- x * factor / sqrt(sum(x^2) + eps), float32 [width] in place."""
    squares = zero_f32x16()
    for c in range(0, 4 * width, 64):
        squares = fma(load_f32x16(x + c), load_f32x16(x + c), squares)
    scale = splat(factor / np.float32(math.sqrt(sum_lanes(squares) + L2_EPS)))
    for c in range(0, 4 * width, 64):
        store_f32x16(x + c, mul(load_f32x16(x + c), scale))


@inline
def gated_norm(o, z, weight, width, eps, sigmoid_gate, y):
    """y = rms_norm(o) * weight * silu(z), or * sigmoid(z): one head, float32 [width]."""
    scale = splat(inverse_rms(o, width, eps))
    for c in range(0, 4 * width, 64):
        normed = mul(mul(load_f32x16(o + c), scale), load_f32x16(weight + c))
        gate = load_f32x16(z + c)
        store_f32x16(y + c, mul(normed, sigmoid(gate) if sigmoid_gate else silu(gate)))


@inline
def _convolve(x, weight, conv_state, taps, channels, first, width, position, keep, y):
    """Channels first to first + width of one token -> y [width], silu of the convolution; keep: x goes into the state."""
    for c in range(4 * first, 4 * (first + width), 64):
        now = load_f32x16(x + c)
        s = mul(now, load_f32x16(weight + 4 * (taps - 1) * channels + c))
        for i in range(1, taps):
            row = (position + taps - i) % taps
            s = fma(
                load_f32x16(conv_state + 4 * row * channels + c),
                load_f32x16(weight + 4 * (taps - 1 - i) * channels + c),
                s,
            )
        if keep:
            store_f32x16(conv_state + 4 * (position % taps) * channels + c, now)
        store_f32x16(y + c - 4 * first, silu(s))


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
def update_row(p, k, q, decay, delta, o):
    """One key's row of `_update`: gives o + q * the new row."""
    new = fma(broadcast_f32(k), delta, mul(load_f32x16(p), decay))
    store_f32x16(p, new)
    return fma(broadcast_f32(q), new, o)


@inline
def _update(state, k, q, key_dim, decay, delta):
    """S <- decay S + k delta^T for 16 value columns; gives S^T q."""
    o0, o1, o2, o3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for i in range(0, key_dim, 4):
        p, at = state + 64 * i, 4 * i
        o0 = update_row(p, k + at, q + at, decay, delta, o0)
        o1 = update_row(p + 64, k + at + 4, q + at + 4, decay, delta, o1)
        o2 = update_row(p + 128, k + at + 8, q + at + 8, decay, delta, o2)
        o3 = update_row(p + 192, k + at + 12, q + at + 12, decay, delta, o3)
    return add(add(o0, o1), add(o2, o3))


@inline
def prepare_head(net, mixed, head, position, q, k, v):
    """The convolution of one token's q, k and v for a value head, float32 [key_dim, key_dim, value_dim]; q and k normalized."""
    key_heads, value_heads = load_i64(net + DELTA_NET.key_heads), load_i64(net + DELTA_NET.value_heads)
    key_dim, value_dim = load_i64(net + DELTA_NET.key_dim), load_i64(net + DELTA_NET.value_dim)
    conv, taps = load_i64(net + DELTA_NET.conv), load_i64(net + DELTA_NET.taps)
    conv_state, share = load_i64(net + DELTA_NET.conv_state), load_i64(net + DELTA_NET.share)
    keys, key_head = key_heads * key_dim, head // share % key_heads
    channels, own = 2 * keys + value_heads * value_dim, head == key_head * share
    for part in range(3):
        first, width = (
            (part * keys + key_head * key_dim, key_dim) if part < 2 else (2 * keys + head * value_dim, value_dim)
        )
        y, keep = (q if part == 0 else k if part == 1 else v), own or part == 2
        _convolve(mixed, conv, conv_state, taps, channels, first, width, position, keep, y)
    l2_normalize(q, key_dim, np.float32(1) / np.float32(math.sqrt(np.float32(key_dim))))
    l2_normalize(k, key_dim, np.float32(1))


@kernel
def delta_step(rank, size, net, mixed, z, beta, alpha, out, batch, scratch, scratch_stride):
    """One token, from convolution to gated norm -> out (an OUTPUT table); threads share the value heads."""
    position, value_heads = load_i64(batch + BATCH.position), load_i64(net + DELTA_NET.value_heads)
    key_dim, value_dim = load_i64(net + DELTA_NET.key_dim), load_i64(net + DELTA_NET.value_dim)
    a, dt_bias, norm = load_i64(net + DELTA_NET.a), load_i64(net + DELTA_NET.dt_bias), load_i64(net + DELTA_NET.norm)
    eps, sigmoid_gate = load_f32(net + DELTA_NET.eps), load_i64(net + DELTA_NET.sigmoid_gate)
    state = load_i64(net + DELTA_NET.state)
    y, q8, residual = load_i64(out + OUTPUT.f32), load_i64(out + OUTPUT.q8), load_i64(out + OUTPUT.residual)
    q = scratch + rank * scratch_stride
    k = q + 4 * key_dim
    v = k + 4 * key_dim
    o = v + 4 * value_dim
    for head in range(start_of(rank, size, value_heads), start_of(rank + 1, size, value_heads)):
        place = head * value_dim
        prepare_head(net, mixed, head, position, q, k, v)
        g = load_f32(a + 4 * head) * softplus(load_f32(alpha + 4 * head) + load_f32(dt_bias + 4 * head))
        decay, strength = splat(np.float32(math.exp(g))), splat(sigmoid1(load_f32(beta + 4 * head)))
        for part in range(0, value_dim, 16):
            s = state + 4 * key_dim * (place + part)
            delta = mul(strength, sub(load_f32x16(v + 4 * part), mul(decay, predict(s, k, key_dim))))
            store_f32x16(o + 4 * part, _update(s, k, q, key_dim, decay, delta))
        gated_norm(o, z + 4 * place, norm, value_dim, eps, sigmoid_gate, y + 4 * place)
        if q8:
            quantize_row(y, value_heads * value_dim, q8, residual, place // 32, (place + value_dim) // 32)


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
    """mixed [1, channels], z [1, value columns], beta and alpha [1, value heads] -> out [1, value columns]."""
    out.read("f32")  # the norm writes float32, from which the other layouts are made
    scratch = plan.scratch(8 * (net.key_dim + net.value_dim))
    rows = mixed.read("f32"), z.read("f32"), beta.read("f32"), alpha.read("f32")
    plan.add(delta_step, net.table(plan, eps), *rows, plan.output(out), plan.batch, *scratch)
