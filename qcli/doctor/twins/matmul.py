"""The plain twin of quant.kernels.matmul, and of the kernels of a format that it calls."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.activation import seen
from qcli.doctor.twins.functions import Array
from quant.weights import Matrix


def weights(w: Matrix) -> Array:
    """Matrix -> float64 [rows, columns]."""
    return w.format.dequantize(w.data).astype(np.float64)


def matmul(x: Array, w: Matrix, scale: float = 1, kind: str | None = None) -> Array:
    """x float32 [tokens, k], w Matrix [n, k] -> float64 [tokens, n], from the activation as the format sees it."""
    products = seen(x, kind or w.format.activation) @ weights(w).T
    return scale * (products if w.bias is None else products + w.bias)


def size(x: Array, w: Matrix) -> Array:
    """What rounding errors are measured by: the products added up by magnitude, float64 [tokens, n]."""
    return np.abs(x).astype(np.float64) @ np.abs(weights(w)).T
