"""Rotary position embedding, RoPE (Su et al., arXiv 2104.09864): a pair of values is rotated by position * frequency.

Pairs of the first n values of a head: i and i + n/2 (as in GPT-NeoX), or 2i and 2i + 1 (interleaved, as in the paper).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.batch import BATCH, position_of
from quant.jit import inline, kernel
from quant.kernels.partition import start_of
from quant.plan import Plan
from quant.simd import bits_to_f32, load_f32, load_i64, store_f32

Frequencies = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Rope:
    """How heads are rotated: by a frequency for each pair, in radians a position, float32 [pairs].

    attention_factor: what rotated values are multiplied by (YaRN's, see `yarn_attention_factor`).
    """

    frequencies: Frequencies
    attention_factor: float = 1.0
    interleaved: bool = False


@kernel
def rope_cos_sin(rank, size, frequencies, pairs, attention_factor, out, batch):
    """attention_factor * cos and sin of position * frequency -> out float32 [tokens, (cos, sin), pairs]."""
    tokens, factor = load_i64(batch + BATCH.tokens), bits_to_f32(attention_factor)
    for t in range(start_of(rank, size, tokens), start_of(rank + 1, size, tokens)):
        row, position = out + t * pairs * 8, position_of(batch, t)
        for i in range(pairs):
            angle = np.float64(np.float32(position) * load_f32(frequencies + 4 * i))
            store_f32(row + 4 * i, factor * np.float32(math.cos(angle)))
            store_f32(row + 4 * (pairs + i), factor * np.float32(math.sin(angle)))


@inline
def _rotate_pair(x, first, second, cos, sin):
    """Rotate the values at two offsets in bytes."""
    a, b = load_f32(x + first), load_f32(x + second)
    store_f32(x + first, a * cos - b * sin)
    store_f32(x + second, b * cos + a * sin)


@inline
def rotate(x, cos_sin, pairs, interleaved):
    """Rotate the first 2 * pairs values of one head in place; cos_sin: float32 [(cos, sin), pairs]."""
    if interleaved:
        for i in range(pairs):
            _rotate_pair(x, 8 * i, 8 * i + 4, load_f32(cos_sin + 4 * i), load_f32(cos_sin + 4 * (pairs + i)))
    else:
        for i in range(pairs):
            _rotate_pair(x, 4 * i, 4 * (pairs + i), load_f32(cos_sin + 4 * i), load_f32(cos_sin + 4 * (pairs + i)))


def frequencies(dimensions: int, base: float) -> Frequencies:
    """float32 [dimensions / 2]: base ** (-2i / dimensions)."""
    exponents = np.arange(0, dimensions, 2, dtype=np.float32) / np.float32(dimensions)
    return (1.0 / (np.float32(base) ** exponents)).astype(np.float32)


def yarn(
    unscaled: Frequencies,
    base: float,
    factor: float,
    original_context: int,
    beta_fast: float = 32,
    beta_slow: float = 1,
    truncate: bool = True,
) -> Frequencies:
    """Frequencies for a context `factor` times the original one (YaRN: Peng et al., arXiv 2309.00071).

    Pairs that make more than `beta_fast` rotations in the original context keep their frequency, for those that make less
    than `beta_slow` it is divided by the factor, and in between it is a mean of both; truncate: the two borders are rounded
    outwards to whole pairs.
    """
    dimensions = 2 * len(unscaled)

    def pair(rotations: float) -> float:
        return dimensions * math.log(original_context / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair(beta_fast), pair(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dimensions - 1)
    divided = np.clip((np.arange(len(unscaled)) - low) / max(high - low, 0.001), 0, 1)
    return (unscaled * (1 - divided) + unscaled / factor * divided).astype(np.float32)


def yarn_attention_factor(factor: float, weight: float = 1.0) -> float:
    """What YaRN multiplies queries and keys by, so that the softmax stays as sharp over `factor` times as many positions."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def cos_sin(plan: Plan, rope: Rope) -> NDArray[np.float32]:
    """float32 [tokens, (cos, sin), pairs] of a replay's positions; computed once for all layers that share `rope`."""

    def trace() -> NDArray[np.float32]:
        out = plan.buffer(f"rope {id(rope)}", (plan.tokens, 2, len(rope.frequencies)), np.float32)
        plan.add(rope_cos_sin, rope.frequencies, len(rope.frequencies), rope.attention_factor, out, plan.batch)
        return out

    return plan.once(rope, trace)
