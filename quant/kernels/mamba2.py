"""Mamba 2 (Dao and Gu, arXiv 2405.21060): a short convolution, then a state S [state, width] of each head.

    S <- exp(a dt) S + dt b x^T;   y = (S^T c + d x) silu(z);   out = y / rms(y of a group of heads) * norm

with dt = softplus(dt + dt_bias), x of each head, and b, c of a group of heads. This is a step of one token, or of a few one
after the other, of which some may turn out to be wrong (see `quant.kernels.deferred`: k is b, and delta is dt x); for many
see `mamba2_chunk`. The state of a head is stored as [width / 16, state, 16].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.activation import store_output
from quant.batch import BATCH, of_one_text, texts_of, tokens_of
from quant.jit import inline, kernel
from quant.kernels.convolution import convolution, convolve
from quant.kernels.deferred import (
    STATES,
    catch_up_part,
    check_tokens,
    defer,
    deferred_floats,
    deferred_of,
    most_tokens,
    states,
    states_of,
    update_state,
)
from quant.kernels.delta_net import softplus
from quant.kernels.delta_net_step import step_row
from quant.kernels.norm import inverse_rms
from quant.kernels.partition import start_of
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import (
    bits_to_f32,
    broadcast_f32,
    fma,
    load_f32,
    load_f32x16,
    load_i64,
    mul,
    splat,
    store_f32,
    store_f32x16,
)
from quant.vector_math import silu

MAMBA2 = Layout(
    "heads",
    "groups",
    "width",
    "state_width",
    "a",
    "d",
    "dt_bias",
    "conv",  # table of quant.kernels.convolution.CONVOLUTION
    "states",  # table of quant.kernels.deferred.STATES
)
_ROWS = Layout(  # of a few tokens: float32 rows, each with the bytes from one token's to the next
    "mixed", "mixed_stride", "z", "z_stride", "dt", "dt_stride", "y", "y_stride"
)  # fmt: skip


@dataclass(frozen=True)
class Mamba2:
    """The weights and state of one layer's heads; channels are x (all heads), b (all groups), then c (all groups).

    conv float32 [taps, channels]; conv_bias float32 [channels]; a, d, dt_bias float32 [heads]; norm float32 [columns];
    conv_state float32 [ring, channels]: the last inputs, that of position p in row p % ring;
    state float32 [heads, width / 16, state_width, 16]. Head j uses b and c of group j // (heads / groups).
    deferred float32 [tokens, heads, floats]: what tokens add that the state has not seen yet, see `quant.kernels.deferred`.
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
    deferred: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.groups < 1 or self.heads % self.groups or self.width % 16 or self.state_width % 16:
            raise ValueError(
                f"{self.heads} heads of {self.width}, {self.groups} groups of {self.state_width}: "
                "kernels need whole groups and multiples of 16"
            )
        if self.columns // self.groups % 32:
            raise ValueError(f"groups of {self.columns // self.groups} columns: kernels need a multiple of 32")
        state, per_head = (self.heads, self.width // 16, self.state_width, 16), (self.a, self.d, self.dt_bias)
        ring = len(self.conv) + most_tokens(self.deferred) - 1, self.channels
        if self.conv.shape[1] != self.channels or self.conv_state.shape != ring or self.state.shape != state:
            raise ValueError(f"{self.channels} channels: conv {self.conv.shape}, state {self.state.shape}")
        if any(values.shape != (self.heads,) for values in per_head) or self.norm.shape != (self.columns,):
            raise ValueError(f"{self.heads} heads: a {self.a.shape}, d {self.d.shape}, norm {self.norm.shape}")
        if self.conv_bias.shape != (self.channels,):
            raise ValueError(f"{self.channels} channels: a bias {self.conv_bias.shape}")
        deferred = self.heads, deferred_floats(self.state_width, self.width)
        if self.deferred is not None and self.deferred.shape[1:] != deferred:
            raise ValueError(f"{self.heads} heads: {self.deferred.shape} deferred")

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
            a=self.a,
            d=self.d,
            dt_bias=self.dt_bias,
            conv=self.convolution(plan),
            states=self.states(plan),
        )

    def convolution(self, plan: Plan) -> Operand:
        """The table of its convolution."""
        return convolution(plan, self.conv, self.conv_bias, self.conv_state)

    def states(self, plan: Plan) -> Operand:
        """The table of its states, see `quant.kernels.deferred`."""
        return states(plan, self.state, self.deferred)


@inline
def gate_skip(o, d, x, z):
    """(o + d x) silu(z) of f32x16: what was read from the state, and the input past it."""
    return mul(fma(splat(d), x, o), silu(z))


@inline
def _prepare_head(net, rows, t, head, new_group, batch, b):
    """The convolution of token t's x for a head, and of b and c for a new group, and its step dt and decay -> from b on.

    float32 [state_width], [state_width], [width], [2].
    """
    heads, groups = load_i64(net + MAMBA2.heads), load_i64(net + MAMBA2.groups)
    width, state_width = load_i64(net + MAMBA2.width), load_i64(net + MAMBA2.state_width)
    conv, mixed, stride = load_i64(net + MAMBA2.conv), load_i64(rows + _ROWS.mixed), load_i64(rows + _ROWS.mixed_stride)
    per_group, x = heads // groups, b + 8 * state_width
    for part in range(0 if new_group else 2, 3):
        first = head * width if part == 2 else heads * width + (part * groups + head // per_group) * state_width
        count, to = (width, x) if part == 2 else (state_width, b + 4 * part * state_width)
        convolve(conv, mixed, stride, t, first, count, batch, part == 2 or head % per_group == 0, to)
    dt = load_f32(step_row(rows, _ROWS.dt, t) + 4 * head)
    step = softplus(dt + load_f32(load_i64(net + MAMBA2.dt_bias) + 4 * head))
    store_f32(x + 4 * width, step)
    store_f32(x + 4 * width + 4, np.float32(math.exp(load_f32(load_i64(net + MAMBA2.a) + 4 * head) * step)))


@inline
def _step_head(net, rows, batch, head, new_group, first, end, local):
    """Tokens first to end, of one text, one after the other for a head; local: scratch memory, see `mamba2_heads`."""
    width, state_width = load_i64(net + MAMBA2.width), load_i64(net + MAMBA2.state_width)
    states, place, in_turn = load_i64(net + MAMBA2.states), head * width, of_one_text(batch)
    skip = load_f32(load_i64(net + MAMBA2.d) + 4 * head)
    first_b, row = local + 64 * state_width, 8 * state_width + 4 * width + 64
    for t in range(first, end):
        _prepare_head(net, rows, t, head, new_group, batch, first_b + (t - first) * row)
    for part in range(0, width, 16):
        s = load_i64(states + STATES.state) + 4 * state_width * (place + part)
        catch_up_part(states, head, part, load_i64(batch + BATCH.deferred))
        for t in range(first, end):
            b = first_b + (t - first) * row
            x = b + 8 * state_width
            value, at = load_f32x16(x + 4 * part), 4 * (place + part)
            before, after = states_of(states, s, batch, t, local)
            added, decay = mul(broadcast_f32(x + 4 * width), value), broadcast_f32(x + 4 * width + 4)
            o = update_state(before, after, b, b + 4 * state_width, state_width, decay, added)
            gate = load_f32x16(step_row(rows, _ROWS.z, t) + at)
            store_f32x16(step_row(rows, _ROWS.y, t) + at, gate_skip(o, skip, value, gate))
            if in_turn and t > 0:
                store_f32x16(deferred_of(states, t - 1, head) + 4 * (state_width + part), added)
    for t in range(1, end if in_turn else 0):
        b = first_b + t * row
        defer(states, t - 1, head, b, b + 8 * state_width + 4 * width + 4)


@kernel
def mamba2_heads(rank, size, net, rows, batch, scratch, scratch_stride):
    """Each text's tokens one after the other, from convolution to gate -> y [tokens, columns].

    Threads share the heads of all texts; those of a text are neighbours, since so are their states in memory.
    Scratch memory: 16 columns of a state, then for each token of a text b, c, x, its step dt and its decay.
    """
    heads = load_i64(net + MAMBA2.heads)
    per_group, items, last = heads // load_i64(net + MAMBA2.groups), texts_of(batch) * heads, -1
    for item in range(start_of(rank, size, items), start_of(rank + 1, size, items)):
        first, end = tokens_of(batch, item // heads)
        _step_head(
            net, rows, batch, item % heads, item // per_group != last, first, end, scratch + rank * scratch_stride
        )
        last = item // per_group


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
    """mixed [tokens, channels], z [tokens, columns], dt [tokens, heads] -> out [tokens, columns]; eps: of the norm.

    Raises ValueError if the plan takes more tokens than the layer can defer.
    """
    check_tokens(plan, net.deferred)
    y = plan.activation("mamba", net.columns)
    given = {"mixed": mixed, "z": z, "dt": dt, "y": y}
    strides = {f"{name}_stride": x.stride("f32") for name, x in given.items()}
    rows = plan.table(_ROWS, **{name: x.read("f32") for name, x in given.items()}, **strides)
    floats = 16 * net.state_width + plan.batch.tokens_of_text(plan.tokens) * (2 * net.state_width + net.width + 16)
    plan.add(mamba2_heads, net.table(plan), rows, plan.batch, *plan.scratch(4 * floats))
    add_norm_groups(plan, net, y, eps, out)
