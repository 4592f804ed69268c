"""Rotary position embedding: a pair of lanes turns by position * frequency (Su et al., arXiv 2104.09864).

NEOX pairing: lane i with lane i + n/2; interleaved: lane 2i with lane 2i + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.jit import inline, kernel
from quant.kernels.partition import start_of
from quant.plan import Plan
from quant.simd import bits_to_f32, load_f32, load_i64, store_f32

Frequencies = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Rope:
    """How heads turn: a frequency for each pair, what turned lanes are multiplied with, and which lanes make a pair."""

    frequencies: Frequencies
    magnitude: float = 1.0
    interleaved: bool = False


@kernel
def rope_angles(rank, size, frequencies, pairs, magnitude, out, run):
    """cos and sin of position * frequency, once a token for all layers."""
    tokens, position, factor = load_i64(run), load_i64(run + 8), bits_to_f32(magnitude)
    for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
        row = out + t * pairs * 8
        for i in range(pairs):
            angle = np.float64(np.float32(position + t) * load_f32(frequencies + 4 * i))
            store_f32(row + 4 * i, factor * np.float32(math.cos(angle)))
            store_f32(row + 4 * (pairs + i), factor * np.float32(math.sin(angle)))


@inline
def _turn(x, first, second, cos, sin):
    a, b = load_f32(x + first), load_f32(x + second)
    store_f32(x + first, a * cos - b * sin)
    store_f32(x + second, b * cos + a * sin)


@inline
def rotate(x, angles, pairs, interleaved):
    """Turn the first 2 * pairs lanes of one head in place; angles holds cos [pairs], then sin [pairs]."""
    if interleaved:
        for i in range(pairs):
            _turn(x, 8 * i, 8 * i + 4, load_f32(angles + 4 * i), load_f32(angles + 4 * (pairs + i)))
    else:
        for i in range(pairs):
            _turn(x, 4 * i, 4 * (pairs + i), load_f32(angles + 4 * i), load_f32(angles + 4 * (pairs + i)))


def frequencies(dimensions: int, base: float) -> Frequencies:
    """float32 [dimensions / 2]: base ** (-2i / dimensions)."""
    exponents = np.arange(0, dimensions, 2, dtype=np.float32) / np.float32(dimensions)
    return (1.0 / (np.float32(base) ** exponents)).astype(np.float32)


def yarn(
    turns: Frequencies, base: float, factor: float, original: int, fast: float = 32, slow: float = 1, whole: bool = True
) -> Frequencies:
    """Frequencies for a context `factor` times the `original` one (Peng et al., arXiv 2309.00071).

    Pairs that turn more than `fast` times in the original context stay, those that turn less than `slow` times are
    divided by the factor, and between them they blend; whole: the two borders are rounded outwards to whole pairs.
    """
    dimensions = 2 * len(turns)

    def pair(rotations: float) -> float:
        return dimensions * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair(fast), pair(slow)
    if whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dimensions - 1)
    divided = np.clip((np.arange(len(turns)) - low) / max(high - low, 0.001), 0, 1)
    return (turns * (1 - divided) + turns / factor * divided).astype(np.float32)


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """What YaRN multiplies turned lanes with, so that attention stays as sharp over more tokens."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def angles(plan: Plan, rope: Rope) -> NDArray[np.float32]:
    """The angles of this replay's tokens, float32 [tokens, 2, pairs]: cos, then sin; made once for all who ask."""

    def trace() -> NDArray[np.float32]:
        out = plan.buffer(f"angles {id(rope)}", (plan.tokens, 2, len(rope.frequencies)), np.float32)
        plan.add(rope_angles, rope.frequencies, len(rope.frequencies), rope.magnitude, out, plan.batch)
        return out

    return plan.once(rope, trace)
