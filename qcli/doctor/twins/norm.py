"""The plain twin of quant.kernels.norm."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.functions import Array


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """float64 [..., n] by weight [n]."""
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight
