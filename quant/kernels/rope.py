"""Rotary position embedding, NEOX pairing: lane i turns with lane i + n/2 (Su et al., arXiv 2104.09864)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quant.jit import inline, kernel
from quant.kernels.share import first_of
from quant.plan import Plan
from quant.simd import load_f32, load_i64, store_f32


@kernel
def rope_angles(rank, size, frequencies, pairs, out, run):
    """cos and sin of position * frequency, once a token for all layers."""
    tokens, position = load_i64(run), load_i64(run + 8)
    for t in range(first_of(rank, size, tokens), first_of(rank + 1, size, tokens)):
        row = out + t * pairs * 8
        for i in range(pairs):
            angle = np.float64(np.float32(position + t) * load_f32(frequencies + 4 * i))
            store_f32(row + 4 * i, np.float32(math.cos(angle)))
            store_f32(row + 4 * (pairs + i), np.float32(math.sin(angle)))


@inline
def rotate(x, angles, pairs):
    """Turn the first 2 * pairs lanes of one head in place; angles holds cos [pairs], then sin [pairs]."""
    for i in range(pairs):
        a, b = load_f32(x + 4 * i), load_f32(x + 4 * (pairs + i))
        cos, sin = load_f32(angles + 4 * i), load_f32(angles + 4 * (pairs + i))
        store_f32(x + 4 * i, a * cos - b * sin)
        store_f32(x + 4 * (pairs + i), b * cos + a * sin)


def frequencies(dimensions: int, base: float) -> NDArray[np.float32]:
    """float32 [dimensions / 2]: base ** (-2i / dimensions)."""
    exponents = np.arange(0, dimensions, 2, dtype=np.float32) / np.float32(dimensions)
    return (1.0 / (np.float32(base) ** exponents)).astype(np.float32)


def angles(plan: Plan, turns: NDArray[np.float32]) -> NDArray[np.float32]:
    """The angles of this replay's tokens, float32 [tokens, 2, pairs]: cos, then sin."""
    out = plan.buffer("rope angles", (plan.tokens, 2, len(turns)), np.float32)
    plan.add(rope_angles, turns, len(turns), out, plan.run)
    return out
