"""The plain twin of quant.kernels.mamba2 and mamba2_chunk: one token after the other, in float64."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.functions import Array, silu, softplus
from qcli.doctor.twins.norm import rms_norm
from quant.kernels.mamba2 import Mamba2


class Mamba2Twin:
    """The recurrence of one layer; `net` gives shapes and weights, and is not written to."""

    def __init__(self, net: Mamba2) -> None:
        self.net = net
        self.conv_state = np.zeros((len(net.conv) - 1, net.channels))
        self.state = np.zeros((net.heads, net.state_width, net.width))

    def step(self, mixed: Array, z: Array, dt: Array, eps: float) -> Array:
        """mixed [channels], z [columns], dt [heads] -> out [columns]."""
        net, group_columns = self.net, self.net.groups * self.net.state_width
        window = np.vstack([self.conv_state, mixed])
        self.conv_state = window[1:]
        convolved = silu((window * net.conv).sum(axis=0) + net.conv_bias)
        x, b, c = np.split(convolved, [net.columns, net.columns + group_columns])
        x, b, c = x.reshape(net.heads, -1), b.reshape(net.groups, -1), c.reshape(net.groups, -1)
        y = np.array([self._head(j, x[j], b[self._group(j)], c[self._group(j)], dt[j]) for j in range(net.heads)])
        gated = y.reshape(-1) * silu(z.astype(np.float64))
        return rms_norm(gated.reshape(net.groups, -1), net.norm.reshape(net.groups, -1), eps).reshape(-1)

    def _group(self, j: int) -> int:
        return j // (self.net.heads // self.net.groups)

    def _head(self, j: int, x: Array, b: Array, c: Array, dt: Array) -> Array:
        step = softplus(np.float64(dt) + self.net.dt_bias[j])
        self.state[j] = np.exp(self.net.a[j] * step) * self.state[j] + step * np.outer(b, x)
        return self.state[j].T @ c + self.net.d[j] * x


def state_of(net: Mamba2) -> Array:
    """The state that kernels hold, [heads, width / 16, state, 16], as [heads, state, width]."""
    return net.state.transpose(0, 2, 1, 3).reshape(net.heads, net.state_width, net.width)
