"""The plain twin of quant.kernels.delta_net, kimi_delta and their chunks: one token after the other, in float64."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.functions import Array, sigmoid, silu, softplus
from qcli.doctor.twins.norm import rms_norm
from quant.kernels.delta_net import DeltaNet


class DeltaNetTwin:
    """The recurrence of one layer; `net` gives shapes and weights, and is not written to."""

    def __init__(self, net: DeltaNet) -> None:
        self.net = net
        self.conv_state: Array = np.zeros((len(net.conv) - 1, net.channels))
        self.state: Array = np.zeros((net.value_heads, net.key_dim, net.value_dim))

    def step(self, mixed: Array, z: Array, beta: Array, alpha: Array, eps: float) -> Array:
        """mixed [channels], z [value columns], beta and alpha [value heads] -> out [value columns].

        alpha [value heads * key_dim] where every channel of the key has a decay of its own.
        """
        return self.finish(self.recur(*self.convolve(mixed), beta, alpha), z, eps)

    def convolve(self, mixed: Array) -> tuple[Array, Array, Array]:
        """mixed [channels] -> q and k [key heads, key_dim], v [value heads, value_dim], the first two of length 1.

        The length of q is divided by the root of the key's width.
        """
        window = np.vstack([self.conv_state, mixed])
        self.conv_state = window[1:]
        q, k, v = self.split(silu((window * self.net.conv).sum(axis=0)))
        return _unit(q) / np.sqrt(self.net.key_dim), _unit(k), v

    def recur(self, q: Array, k: Array, v: Array, beta: Array, alpha: Array) -> Array:
        """What heads read from the state after the token is in it: [value heads, value_dim]."""
        places = [j // self.net.share % self.net.key_heads for j in range(self.net.value_heads)]
        return np.array([self._head(j, q[i], k[i], v[j], beta, alpha) for j, i in enumerate(places)])

    def finish(self, o: Array, z: Array, eps: float) -> Array:
        """o [value heads, value_dim] normed and gated -> [value columns]."""
        z = z.astype(np.float64)
        return rms_norm(o, self.net.norm, eps).reshape(-1) * (sigmoid(z) if self.net.sigmoid_gate else silu(z))

    def _head(self, j: int, q: Array, k: Array, v: Array, beta: Array, alpha: Array) -> Array:
        s = self.state[j] * np.exp(self._log_decay(j, alpha))
        delta = sigmoid(np.float64(beta[j])) * (v - s.T @ k)
        self.state[j] = s + np.outer(k, delta)
        return self.state[j].T @ q

    def _log_decay(self, j: int, alpha: Array) -> Array:
        net = self.net
        x = alpha.astype(np.float64).reshape(net.value_heads, -1)[j] + net.dt_bias.reshape(net.value_heads, -1)[j]
        g = net.lower_bound * sigmoid(net.a[j] * x) if net.lower_bound else net.a[j] * softplus(x)
        return g[:, None]  # of one channel for all, or of every channel of the key

    def split(self, x: Array) -> tuple[Array, Array, Array]:
        """[channels] -> q, k, v, a row a head."""
        net, keys = self.net, self.net.key_heads * self.net.key_dim
        q, k, v = np.split(x, [keys, 2 * keys])
        return q.reshape(-1, net.key_dim), k.reshape(-1, net.key_dim), v.reshape(-1, net.value_dim)


def state_of(net: DeltaNet) -> Array:
    """The state that kernels hold, [value heads, value / 16, key, 16], as [value heads, key, value]."""
    return net.state.transpose(0, 2, 1, 3).reshape(net.value_heads, net.key_dim, net.value_dim)


def _unit(x: Array) -> Array:
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)
