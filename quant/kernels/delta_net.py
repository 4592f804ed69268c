"""Gated DeltaNet (Yang, Kautz and Hatamizadeh, arXiv 2412.06464): a short convolution, then a state S [key, value] of each head.

    S <- exp(g) S;   delta = beta (v - S^T k);   S <- S + k delta^T;   o = S^T q

with g = a softplus(alpha + dt_bias), and q, k l2-normalized. A step is in `delta_net_step`, many tokens are in
`delta_net_chunk`. Where every channel of the key has a g of its own (Kimi Delta Attention), see `kimi_delta`.
The state of a head is stored as [value / 16, key, 16], so that a step reads it from its first byte to its last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.jit import inline
from quant.kernels.convolution import convolution
from quant.kernels.deferred import deferred_floats, most_tokens, states
from quant.kernels.norm import inverse_rms
from quant.layout import Layout
from quant.plan import Operand, Plan
from quant.simd import (
    fma,
    load_f32x16,
    mul,
    splat,
    store_f32x16,
    sum_lanes,
    zero_f32x16,
)
from quant.vector_math import sigmoid, silu

L2_EPS = np.float32(1e-6)
DELTA_NET = Layout(
    "key_heads", "value_heads", "key_dim", "value_dim", "share", "a", "dt_bias", "norm", "eps", "sigmoid_gate", "lower_bound",
    "conv",  # table of quant.kernels.convolution.CONVOLUTION
    "states",  # table of quant.kernels.deferred.STATES
)  # fmt: skip


@dataclass(frozen=True)
class DeltaNet:
    """The weights and state of one layer's heads; channels are q (all key heads), k, then v (all value heads).

    conv float32 [taps, channels]; a, dt_bias float32 [value heads]; norm float32 [value_dim];
    dt_bias [value heads, key_dim] where every channel of the key has a decay of its own, and then lower_bound, if below 0:
    the decay is g = lower_bound sigmoid(a (alpha + dt_bias)).
    conv_state float32 [ring, channels]: the last inputs, that of position p in row p % ring;
    state float32 [value heads, value_dim / 16, key_dim, 16].
    deferred float32 [tokens, value heads, floats]: what tokens add that the state has not seen yet, see `quant.kernels.deferred`.
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
    deferred: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        state = (self.value_heads, self.value_dim // 16, self.key_dim, 16)
        rows = len(self.conv) + most_tokens(self.deferred) - 1
        if (
            self.conv.shape[1] != self.channels
            or self.conv_state.shape != (rows, self.channels)
            or self.state.shape != state
        ):
            raise ValueError(f"{self.channels} channels: conv {self.conv.shape}, state {self.state.shape}")
        if self.key_dim % 16 or self.value_dim % 16 or self.norm.shape != (self.value_dim,):
            raise ValueError(f"heads of {self.key_dim} and {self.value_dim}: kernels need multiples of 16")
        biases = (self.value_heads,), (self.value_heads, self.key_dim)
        if self.a.shape != (self.value_heads,) or self.dt_bias.shape not in biases:
            raise ValueError(f"{self.value_heads} value heads: a {self.a.shape}, dt {self.dt_bias.shape}")
        floats = deferred_floats(self.key_dim, self.value_dim, self.decays)
        if self.deferred is not None and self.deferred.shape[1:] != (self.value_heads, floats):
            raise ValueError(f"{self.value_heads} value heads: {self.deferred.shape} deferred")

    @property
    def decays(self) -> int:
        """Of a head: one, or one for each channel of the key."""
        return self.dt_bias.size // self.value_heads

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
            a=self.a,
            dt_bias=self.dt_bias,
            norm=self.norm,
            eps=eps,
            sigmoid_gate=int(self.sigmoid_gate),
            lower_bound=float(self.lower_bound),
            conv=self.convolution(plan),
            states=self.states(plan),
        )

    def convolution(self, plan: Plan) -> Operand:
        """The table of its convolution."""
        return convolution(plan, self.conv, None, self.conv_state)

    def states(self, plan: Plan) -> Operand:
        """The table of its states, see `quant.kernels.deferred`."""
        return states(plan, self.state, self.deferred, self.decays)


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
