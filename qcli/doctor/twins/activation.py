"""The plain twin of quant.activation: int8 blocks of 32 columns, each with a scale."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.functions import Array


def quantize(x: Array) -> tuple[Array, Array]:
    """float32 [..., n] -> whole numbers [..., n / 32, 32] and their scales [..., n / 32, 1]; value = d * q."""
    blocks = np.asarray(x, np.float32).reshape(*x.shape[:-1], -1, 32)
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    inverse = np.where(largest > 0, np.float32(127) / np.where(largest > 0, largest, 1), 0).astype(np.float32)
    return np.rint(blocks * inverse), (largest / np.float32(127)).astype(np.float32)


def seen(x: Array, kind: str) -> Array:
    """What a matrix sees of x, float64 [..., n]: kind is 'f32', 'q8', or 'residual' for q8 and what it leaves."""
    if kind == "f32":
        return np.asarray(x, np.float64)
    q, d = quantize(x)
    rounded = (q.astype(np.float64) * d).reshape(x.shape)
    return rounded + seen((x - rounded).astype(np.float32), "q8") if kind == "residual" else rounded
