"""The plain twin of quant.kernels.rope."""

from __future__ import annotations

import numpy as np


def angles(positions, dimensions, base):
    """float64 [tokens, dimensions / 2]: position * base ** (-2i / dimensions)."""
    return np.outer(positions, base ** (-np.arange(0, dimensions, 2) / dimensions))


def rotate(x, angles, interleaved=False):
    """x [tokens, heads, width]: lane i turns with lane i + n/2, or 2i with 2i + 1, for the first n = 2 * pairs lanes.

    angles: [tokens, pairs]; complex numbers turn by their product.
    """
    n = 2 * angles.shape[1]
    turning = x[..., :n]
    if interleaved:
        turning = np.concatenate([turning[..., ::2], turning[..., 1::2]], axis=-1)
    a, b = np.split(turning, 2, axis=-1)
    turned = (a + 1j * b) * np.exp(1j * angles)[:, None]
    turning = np.concatenate([turned.real, turned.imag], axis=-1)
    if interleaved:
        turning = np.stack(np.split(turning, 2, axis=-1), axis=-1).reshape(turning.shape)
    return np.concatenate([turning, x[..., n:]], axis=-1)


def yarn(dimensions, base, factor, original, fast=32.0, slow=1.0, whole=True):
    """float64 [dimensions / 2], pair by pair as arXiv 2309.00071, section 3.2: by how often a pair turns over `original`."""

    def border(rotations):
        return dimensions * np.log(original / (2 * np.pi * rotations)) / (2 * np.log(base))

    low, high = (np.floor(border(fast)), np.ceil(border(slow))) if whole else (border(fast), border(slow))
    low, high = max(low, 0), min(high, dimensions - 1)
    frequencies = []
    for i in range(dimensions // 2):
        plain = base ** (-2 * i / dimensions)
        if i <= low:
            frequencies.append(plain)
        elif i >= high:
            frequencies.append(plain / factor)
        else:
            share = (i - low) / (high - low)
            frequencies.append(share * plain / factor + (1 - share) * plain)
    return np.array(frequencies)
