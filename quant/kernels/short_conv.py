"""The gated short convolution of LFM2 (Liquid AI, arXiv 2511.23404): y = c * conv(b * x), depthwise and causal.

A channel of a token depends on the same channel of the last few tokens, whose b * x are the state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import store_output
from quant.jit import inline, kernel
from quant.kernels.partition import start_of
from quant.plan import BATCH, Activation, Plan
from quant.simd import fma, load_f32x16, load_i64, mul, store_f32x16, zero_f32x16


@inline
def _input(bcx, stride, conv_state, ring, columns, t, position, c):
    """16 channels of b * x of token t of this replay, or, for t < 0, of a token before it; c: bytes into a row."""
    if t < 0:
        return load_f32x16(conv_state + 4 * ((position + t + ring) % ring) * columns + c)
    row = bcx + t * stride + c
    return mul(load_f32x16(row), load_f32x16(row + 8 * columns))


@inline
def _convolve(bcx, stride, weight, conv_state, ring, taps, columns, t, position, c):
    """16 channels of c * conv(b * x) of token t."""
    total = zero_f32x16()
    for i in range(taps):
        x = _input(bcx, stride, conv_state, ring, columns, t - taps + 1 + i, position, c)
        total = fma(x, load_f32x16(weight + 4 * i * columns + c), total)
    return mul(total, load_f32x16(bcx + t * stride + 4 * columns + c))


@kernel
def convolve_gated(rank, size, bcx, stride, weight, conv_state, ring, taps, columns, out, batch):
    """bcx [tokens, (b, c, x)] -> out [tokens, columns] (an OUTPUT table); threads share the channels, 32 at a time."""
    tokens, position = load_i64(batch + BATCH.tokens), load_i64(batch + BATCH.position)
    for block in range(start_of(rank, size, columns // 32), start_of(rank + 1, size, columns // 32)):
        at = 128 * block
        for t in range(tokens):
            low = _convolve(bcx, stride, weight, conv_state, ring, taps, columns, t, position, at)
            high = _convolve(bcx, stride, weight, conv_state, ring, taps, columns, t, position, at + 64)
            store_output(low, high, columns, block, out, t)
        for t in range(max(0, tokens - ring), tokens):
            row = conv_state + 4 * ((position + t) % ring) * columns
            for c in range(at, at + 128, 64):
                store_f32x16(row + c, _input(bcx, stride, conv_state, ring, columns, t, position, c))


def short_conv(
    plan: Plan, bcx: Activation, weight: NDArray[np.float32], conv_state: NDArray[np.float32], out: Activation
) -> None:
    """bcx [tokens, (b, c, x)], weight float32 [taps, n] -> out [tokens, n].

    conv_state float32 [ring, n]: the last b * x, that of position p in row p % ring; there are taps rows, and one more for
    each token but one that a stepwise plan takes, so that those before a token are there when it turns out to be wrong.
    """
    taps, columns = weight.shape
    if (
        bcx.columns != 3 * columns
        or out.columns != columns
        or columns % 32
        or conv_state.shape[1] != columns
        or not _fits(plan, taps, conv_state)
    ):
        raise ValueError(f"{columns} channels of {bcx.columns} and {out.columns} columns, state {conv_state.shape}")
    rows = bcx.read("f32"), bcx.stride("f32")
    plan.add(convolve_gated, *rows, weight, conv_state, len(conv_state), taps, columns, plan.output(out), plan.batch)


def _fits(plan: Plan, taps: int, conv_state: NDArray[np.float32]) -> bool:
    most = plan.tokens if plan.stepwise else 1
    return len(conv_state) >= taps + most - 1
