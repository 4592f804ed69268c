"""Functions of a single float32, where quant.simd has those of vectors."""

from __future__ import annotations

import math

import numpy as np

from quant.jit import inline


@inline
def sigmoid1(x):
    """1 / (1 + exp(-x)) of one float32."""
    return np.float32(1) / (np.float32(1) + np.float32(math.exp(-x)))
