"""Mamba 2 (Dao and Gu, arXiv 2405.21060): a short convolution, then a state S [state, width] of each head.

    S <- exp(a dt) S + dt b x^T;   y = (S^T c + d x) silu(z);   out = y / rms(y of a group of heads) * norm

with dt = softplus(dt + dt_bias), x of each head, and b, c of a group of heads. This is a step of one token; for many see
`mamba2_chunk`. The state of a head is stored as [width / 16, state, 16], so that a step reads it from its first byte to
its last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.activation import store_output
from quant.batch import BATCH
from quant.jit import inline, kernel
from quant.kernels.delta_net import softplus
from quant.kernels.delta_net_step import update_state
from quant.kernels.norm import inverse_rms
from quant.kernels.partition import start_of
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import bits_to_f32, fma, load_f32, load_f32x16, load_i64, mul, splat, store_f32x16
from quant.vector_math import silu

MAMBA2 = Layout(
    "heads", "groups", "width", "state_width", "conv", "conv_bias", "taps", "conv_state", "a", "d", "dt_bias", "state"
)  # fmt: skip


@dataclass(frozen=True)
class Mamba2:
    """The weights and state of one layer's heads; channels are x (all heads), b (all groups), then c (all groups).

    conv float32 [taps, channels]; conv_bias float32 [channels]; a, d, dt_bias float32 [heads]; norm float32 [columns];
    conv_state float32 [taps, channels]: the last inputs, that of position p in row p % taps;
    state float32 [heads, width / 16, state_width, 16]. Head j uses b and c of group j // (heads / groups).
    """

    heads: int
    groups: int
    width: int
    state_width: int
    conv: NDArray[np.float32]
    conv_bias: NDArray[np.float32]
    a: NDArray[np.float32]
    d: NDArray[np.float32]
    dt_bias: NDArray[np.float32]
    norm: NDArray[np.float32]
    conv_state: NDArray[np.float32]
    state: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.groups < 1 or self.heads % self.groups or self.width % 16 or self.state_width % 16:
            raise ValueError(
                f"{self.heads} heads of {self.width}, {self.groups} groups of {self.state_width}: "
                "kernels need whole groups and multiples of 16"
            )
        if self.columns // self.groups % 32:
            raise ValueError(f"groups of {self.columns // self.groups} columns: kernels need a multiple of 32")
        state, per_head = (self.heads, self.width // 16, self.state_width, 16), (self.a, self.d, self.dt_bias)
        if self.conv.shape[1] != self.channels or self.conv_state.shape != self.conv.shape or self.state.shape != state:
            raise ValueError(f"{self.channels} channels: conv {self.conv.shape}, state {self.state.shape}")
        if any(values.shape != (self.heads,) for values in per_head) or self.norm.shape != (self.columns,):
            raise ValueError(f"{self.heads} heads: a {self.a.shape}, d {self.d.shape}, norm {self.norm.shape}")
        if self.conv_bias.shape != (self.channels,):
            raise ValueError(f"{self.channels} channels: a bias {self.conv_bias.shape}")

    @property
    def columns(self) -> int:
        """Columns of x, of z, and of the outputs."""
        return self.heads * self.width

    @property
    def channels(self) -> int:
        """Columns of x, b and c together."""
        return self.columns + 2 * self.groups * self.state_width

    def table(self, plan: Plan) -> Operand:
        """The table of this layer, by which kernels know it."""
        return plan.table(
            MAMBA2,
            heads=self.heads,
            groups=self.groups,
            width=self.width,
            state_width=self.state_width,
            conv=self.conv,
            conv_bias=self.conv_bias,
            taps=len(self.conv),
            conv_state=self.conv_state,
            a=self.a,
            d=self.d,
            dt_bias=self.dt_bias,
            state=self.state,
        )


@inline
def convolve(x, weight, bias, conv_state, taps, channels, first, width, position, keep, y):
    """Channels first to first + width of one token -> y [width], silu of the convolution; keep: x goes into the state."""
    for c in range(4 * first, 4 * (first + width), 64):
        now = load_f32x16(x + c)
        s = fma(now, load_f32x16(weight + 4 * (taps - 1) * channels + c), load_f32x16(bias + c))
        for i in range(1, taps):
            before = conv_state + 4 * ((position + taps - i) % taps) * channels
            s = fma(load_f32x16(before + c), load_f32x16(weight + 4 * (taps - 1 - i) * channels + c), s)
        if keep:
            store_f32x16(conv_state + 4 * (position % taps) * channels + c, now)
        store_f32x16(y + c - 4 * first, silu(s))


@inline
def gate_skip(o, d, x, z):
    """(o + d x) silu(z) of f32x16: what was read from the state, and the input past it."""
    return mul(fma(splat(d), x, o), silu(z))


@kernel
def mamba2_heads(rank, size, net, mixed, z, dt, y, batch, scratch, scratch_stride):
    """One token, from convolution to gate -> y [columns]; threads share the heads."""
    position = load_i64(batch + BATCH.position)
    heads, groups = load_i64(net + MAMBA2.heads), load_i64(net + MAMBA2.groups)
    width, state_width = load_i64(net + MAMBA2.width), load_i64(net + MAMBA2.state_width)
    conv, bias, taps = load_i64(net + MAMBA2.conv), load_i64(net + MAMBA2.conv_bias), load_i64(net + MAMBA2.taps)
    conv_state, state = load_i64(net + MAMBA2.conv_state), load_i64(net + MAMBA2.state)
    a, d, dt_bias = load_i64(net + MAMBA2.a), load_i64(net + MAMBA2.d), load_i64(net + MAMBA2.dt_bias)
    columns, per_group, last_group = heads * width, heads // groups, -1
    channels = columns + 2 * groups * state_width
    b = scratch + rank * scratch_stride
    c = b + 4 * state_width
    x = c + 4 * state_width
    for head in range(start_of(rank, size, heads), start_of(rank + 1, size, heads)):
        group, place = head // per_group, head * width
        for part in range(0 if group != last_group else 2, 3):  # b and c of a new group, x of this head
            first = place if part == 2 else columns + (part * groups + group) * state_width
            count, to = (width, x) if part == 2 else (state_width, b + 4 * part * state_width)
            keep = part == 2 or head == group * per_group
            convolve(mixed, conv, bias, conv_state, taps, channels, first, count, position, keep, to)
        last_group = group
        step = softplus(load_f32(dt + 4 * head) + load_f32(dt_bias + 4 * head))
        decay, skip = splat(np.float32(math.exp(load_f32(a + 4 * head) * step))), load_f32(d + 4 * head)
        for i in range(0, 4 * width, 64):
            s = state + state_width * (4 * place + i)
            value = load_f32x16(x + i)
            o = update_state(s, s, b, c, state_width, decay, mul(splat(step), value))
            store_f32x16(y + 4 * place + i, gate_skip(o, skip, value, load_f32x16(z + 4 * place + i)))


@kernel
def norm_groups(rank, size, y, stride, columns, groups, weight, eps, out, batch):
    """Each group of columns of y [tokens, columns] normed by itself -> out (an OUTPUT table).

    Threads share all rows' blocks of 32 columns; each sums the squares of the groups that it has a part of.
    """
    blocks, per_group = columns // 32, columns // 32 // groups
    count = load_i64(batch + BATCH.tokens) * blocks
    at, last = start_of(rank, size, count), start_of(rank + 1, size, count)
    while at < last:
        t, group = at // blocks, at % blocks // per_group
        row, end = y + t * stride, min(last, t * blocks + (group + 1) * per_group)
        scale = splat(inverse_rms(row + 128 * group * per_group, 32 * per_group, bits_to_f32(eps)))
        for block in range(at - t * blocks, end - t * blocks):
            c = 128 * block
            low = mul(mul(load_f32x16(row + c), scale), load_f32x16(weight + c))
            high = mul(mul(load_f32x16(row + c + 64), scale), load_f32x16(weight + c + 64))
            store_output(low, high, columns, block, out, t)
        at = end


def add_norm_groups(plan: Plan, net: Mamba2, y: Activation, eps: float, out: Activation) -> None:
    """y [tokens, columns] normed group by group -> out [tokens, columns]."""
    rows = y.read("f32"), y.stride("f32")
    plan.add(norm_groups, *rows, net.columns, net.groups, net.norm, float(eps), plan.output(out), plan.batch)


def mamba2_step(
    plan: Plan, net: Mamba2, mixed: Activation, z: Activation, dt: Activation, eps: float, out: Activation
) -> None:
    """mixed [1, channels], z [1, columns], dt [1, heads] -> out [1, columns]; eps: of the norm."""
    y = plan.activation("mamba", net.columns)
    rows = mixed.read("f32"), z.read("f32"), dt.read("f32"), y.read("f32")
    scratch = plan.scratch(4 * (2 * net.state_width + net.width))
    plan.add(mamba2_heads, net.table(plan), *rows, plan.batch, *scratch)
    add_norm_groups(plan, net, y, eps, out)
