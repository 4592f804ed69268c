"""The plain twin of quant.kernels.norm."""

from __future__ import annotations

import numpy as np


def rms_norm(x, weight, eps):
    """float64 [..., n] by weight [n]."""
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight
