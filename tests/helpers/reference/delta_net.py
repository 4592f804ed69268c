"""The plain twin of quant.kernels.delta_net and delta_net_chunk: one token after the other, in float64."""

from __future__ import annotations

import numpy as np
from reference.functions import sigmoid, silu, softplus
from reference.norm import rms_norm


class DeltaNetTwin:
    """The recurrence of one layer; `net` gives shapes and weights, and is not written to."""

    def __init__(self, net):
        self.net = net
        self.recent = np.zeros((len(net.conv) - 1, net.channels))
        self.state = np.zeros((net.value_heads, net.key_width, net.value_width))

    def step(self, mixed, z, beta, alpha, eps):
        """mixed [channels], z [value columns], beta and alpha [value heads] -> out [value columns]."""
        net, out = self.net, []
        window = np.vstack([self.recent, mixed])
        self.recent = window[1:]
        q, k, v = self._split(silu((window * net.conv).sum(axis=0)))
        for j in range(net.value_heads):
            i = j // net.share % net.key_heads
            out.append(self._head(j, _unit(q[i]) / np.sqrt(net.key_width), _unit(k[i]), v[j], beta, alpha))
        o = rms_norm(np.array(out), net.norm, eps)
        z = z.astype(np.float64)
        return o.reshape(-1) * (sigmoid(z) if net.by_sigmoid else silu(z))

    def _head(self, j, q, k, v, beta, alpha):
        g = self.net.a[j] * softplus(np.float64(alpha[j]) + self.net.dt[j])
        s = self.state[j] * np.exp(g)
        delta = sigmoid(np.float64(beta[j])) * (v - s.T @ k)
        self.state[j] = s + np.outer(k, delta)
        return self.state[j].T @ q

    def _split(self, x):
        net, keys = self.net, self.net.key_heads * self.net.key_width
        q, k, v = np.split(x, [keys, 2 * keys])
        return q.reshape(-1, net.key_width), k.reshape(-1, net.key_width), v.reshape(-1, net.value_width)


def state_of(net):
    """The state that kernels hold, [value heads, value / 16, key, 16], as [value heads, key, value]."""
    return net.state.transpose(0, 2, 1, 3).reshape(net.value_heads, net.key_width, net.value_width)


def _unit(x):
    return x / np.sqrt((x * x).sum() + 1e-6)
