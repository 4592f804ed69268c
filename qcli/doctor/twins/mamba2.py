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
        self.conv_state: Array = np.zeros((len(net.conv) - 1, net.channels))
        self.state: Array = np.zeros((net.heads, net.state_width, net.width))

    def step(self, mixed: Array, z: Array, dt: Array, eps: float) -> Array:
        """mixed [channels], z [columns], dt [heads] -> out [columns]."""
        return self.finish(self.recur(*self.split(self.convolve(mixed)), z, dt), eps)

    def convolve(self, mixed: Array) -> Array:
        """mixed [channels] -> [channels], the token's inputs kept."""
        window = np.vstack([self.conv_state, mixed])
        self.conv_state = window[1:]
        return silu((window * self.net.conv).sum(axis=0) + self.net.conv_bias)

    def split(self, convolved: Array) -> tuple[Array, Array, Array]:
        """[channels] -> x [heads, width], b and c [groups, state_width]."""
        net, group_columns = self.net, self.net.groups * self.net.state_width
        x, b, c = np.split(convolved, [net.columns, net.columns + group_columns])
        return x.reshape(net.heads, -1), b.reshape(net.groups, -1), c.reshape(net.groups, -1)

    def recur(self, x: Array, b: Array, c: Array, z: Array, dt: Array) -> Array:
        """What heads read from the state after the token is in it, gated: [columns]."""
        group = [self._group(j) for j in range(self.net.heads)]
        y = np.array([self._head(j, x[j], b[i], c[i], dt[j]) for j, i in enumerate(group)])
        return y.reshape(-1) * silu(z.astype(np.float64))

    def finish(self, gated: Array, eps: float) -> Array:
        """[columns], each group of them normed by itself."""
        groups = self.net.groups
        return rms_norm(gated.reshape(groups, -1), self.net.norm.reshape(groups, -1), eps).reshape(-1)

    def _group(self, j: int) -> int:
        return j // (self.net.heads // self.net.groups)

    def _head(self, j: int, x: Array, b: Array, c: Array, dt: Array) -> Array:
        step = softplus(np.float64(dt) + self.net.dt_bias[j])
        self.state[j] = np.exp(self.net.a[j] * step) * self.state[j] + step * np.outer(b, x)
        return self.state[j].T @ c + self.net.d[j] * x


def state_of(net: Mamba2) -> Array:
    """The state that kernels hold, [heads, width / 16, state, 16], as [heads, state, width]."""
    return net.state.transpose(0, 2, 1, 3).reshape(net.heads, net.state_width, net.width)
