"""The plain twin of quant.kernels.rope."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.functions import Array


def angles(positions: Array, dimensions: int, base: float) -> Array:
    """float64 [tokens, dimensions / 2]: position * base ** (-2i / dimensions)."""
    return np.outer(positions, base ** (-np.arange(0, dimensions, 2) / dimensions))


def rotate(x: Array, angles: Array, interleaved: bool = False) -> Array:
    """x [tokens, heads, width]: values i and i + n/2 of the first n = 2 * pairs are rotated, or, interleaved, 2i and 2i + 1.

    angles: [tokens, pairs]; a complex number is rotated by a product.
    """
    n = 2 * angles.shape[1]
    rotary = x[..., :n]
    if interleaved:
        rotary = np.concatenate([rotary[..., ::2], rotary[..., 1::2]], axis=-1)
    a, b = np.split(rotary, 2, axis=-1)
    rotated = (a + 1j * b) * np.exp(1j * angles)[:, None]
    rotary = np.concatenate([rotated.real, rotated.imag], axis=-1)
    if interleaved:
        rotary = np.stack(np.split(rotary, 2, axis=-1), axis=-1).reshape(rotary.shape)
    return np.concatenate([rotary, x[..., n:]], axis=-1)


def yarn(
    dimensions: int,
    base: float,
    factor: float,
    original_context: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> Array:
    """float64 [dimensions / 2], pair by pair as in arXiv 2309.00071, section 3.2: by its rotations over `original_context`."""

    def border(rotations: float) -> Array:
        return dimensions * np.log(original_context / (2 * np.pi * rotations)) / (2 * np.log(base))

    low, high = (
        (np.floor(border(beta_fast)), np.ceil(border(beta_slow)))
        if truncate
        else (border(beta_fast), border(beta_slow))
    )
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
