"""The plain twin of quant.kernels.hyper_connections; x [tokens, streams, n]."""

from __future__ import annotations

from qcli.doctor.twins.functions import Array, sigmoid


def mean_streams(x: Array, gate: Array) -> Array:
    """The mean over streams of x sigmoid(gate), both [tokens, streams, n] -> [tokens, n]."""
    return (x * sigmoid(gate)).mean(axis=1)


def add_to_streams(x: Array, added: Array, inject: Array) -> Array:
    """x + 2 sigmoid(inject) added of each stream: added [tokens, n], inject [tokens, streams]."""
    return x + added[:, None] * 2 * sigmoid(inject)[..., None]
