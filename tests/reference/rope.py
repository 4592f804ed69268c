"""The plain twin of quant.kernels.rope."""

from __future__ import annotations

import numpy as np


def angles(positions, dimensions, base):
    """float64 [tokens, dimensions / 2]: position * base ** (-2i / dimensions)."""
    return np.outer(positions, base ** (-np.arange(0, dimensions, 2) / dimensions))


def rotate(x, angles):
    """x [tokens, heads, width]: lane i turns with lane i + n/2 for the first n = 2 * pairs lanes; angles [tokens, pairs]."""
    pairs = angles.shape[1]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b, rest = np.split(x, [pairs, 2 * pairs], axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)
