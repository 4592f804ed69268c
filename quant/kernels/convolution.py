"""The short convolution in front of a recurrent layer: depthwise and causal, a few taps, then silu.

A channel of a token depends on the same channel of the last few tokens, whose inputs are kept in a ring: that of position p
in row p % ring. A ring has a row for each tap, and one more for each token but one that a step takes (see
quant.kernels.deferred), so that the inputs before a token are there when it turns out to be wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.batch import BATCH, of_one_text, position_of, slot_of
from quant.jit import inline, kernel
from quant.kernels.partition import start_of
from quant.layout import Layout
from quant.plan import Activation, Operand, Plan
from quant.simd import fma, load_f32x16, load_i64, mul, store_f32x16, zero_f32x16
from quant.vector_math import silu

CONVOLUTION = Layout(
    "weights",  # float32 [taps, channels]
    "bias",  # float32 [channels]; 0: none
    "taps",
    "channels",
    "inputs",  # float32 [ring, channels]
    "slot",  # bytes to the inputs of the next text
    "ring",
)


def convolution(
    plan: Plan, weights: NDArray[np.float32], bias: NDArray[np.float32] | None, inputs: NDArray[np.float32]
) -> Operand:
    """The table of a convolution: weights float32 [taps, channels], bias [channels], inputs [ring, channels]."""
    ring, slot = plan.slotted(inputs)
    taps, channels = weights.shape
    return plan.table(
        CONVOLUTION,
        weights=weights,
        bias=0 if bias is None else bias,
        taps=taps,
        channels=channels,
        inputs=ring,
        slot=slot,
        ring=len(inputs),
    )


def ring_rows(plan: Plan, taps: int) -> int:
    """The fewest rows of a ring that has the last `taps` inputs of a text: more where guesses of a step may turn out wrong."""
    return taps + (plan.tokens - 1 if plan.stepwise and plan.batch.texts == 0 else 0)


@inline
def convolve(conv, x, stride, t, first, width, batch, keep, y):
    """Channels first to first + width of token t of a step -> y [width]; keep: its inputs go into the ring.

    conv: table of CONVOLUTION; x: the tokens' rows, `stride` bytes apart.
    """
    weights, bias = load_i64(conv + CONVOLUTION.weights), load_i64(conv + CONVOLUTION.bias)
    inputs, ring = load_i64(conv + CONVOLUTION.inputs), load_i64(conv + CONVOLUTION.ring)
    taps, row = load_i64(conv + CONVOLUTION.taps), 4 * load_i64(conv + CONVOLUTION.channels)
    inputs += slot_of(batch, t) * load_i64(conv + CONVOLUTION.slot)
    position, here = (
        position_of(batch, t),
        t if of_one_text(batch) else 0,
    )  # tokens before it whose rows are before its own
    x += t * stride
    for c in range(4 * first, 4 * (first + width), 64):
        now, last = load_f32x16(x + c), load_f32x16(weights + (taps - 1) * row + c)
        s = fma(now, last, load_f32x16(bias + c)) if bias else mul(now, last)
        for i in range(1, taps):
            before = x - i * stride if i <= here else inputs + (position - i + ring) % ring * row
            s = fma(load_f32x16(before + c), load_f32x16(weights + (taps - 1 - i) * row + c), s)
        if keep:
            store_f32x16(inputs + position % ring * row + c, now)
        store_f32x16(y + c - 4 * first, silu(s))


@inline
def _tap(mixed, stride, inputs, ring, row, t, position):
    """Address of the inputs of token t of this replay, or, for t < 0, of a token before it."""
    return mixed + t * stride if t >= 0 else inputs + (position + t + ring) % ring * row


@kernel
def convolve_rows(rank, size, conv, mixed, stride, out, batch):
    """Many tokens of one text -> out, as mixed [tokens, channels]; threads share the channels, token by token."""
    tokens, position = load_i64(batch + BATCH.tokens), load_i64(batch + BATCH.position)
    weights, bias = load_i64(conv + CONVOLUTION.weights), load_i64(conv + CONVOLUTION.bias)
    inputs, ring = load_i64(conv + CONVOLUTION.inputs), load_i64(conv + CONVOLUTION.ring)
    taps, channels = load_i64(conv + CONVOLUTION.taps), load_i64(conv + CONVOLUTION.channels)
    first, last = 64 * start_of(rank, size, channels // 16), 64 * start_of(rank + 1, size, channels // 16)
    for t in range(tokens):
        row = out + t * stride
        for i in range(taps):
            x = _tap(mixed, stride, inputs, ring, 4 * channels, t - taps + 1 + i, position)
            weight = weights + 4 * i * channels
            for c in range(first, last, 64):
                before = load_f32x16(row + c) if i else load_f32x16(bias + c) if bias else zero_f32x16()
                s = fma(load_f32x16(x + c), load_f32x16(weight + c), before)
                store_f32x16(row + c, silu(s) if i == taps - 1 else s)
    for t in range(max(0, tokens - taps), tokens):
        for c in range(first, last, 64):
            store_f32x16(inputs + (position + t) % ring * 4 * channels + c, load_f32x16(mixed + t * stride + c))


def add_convolve_rows(plan: Plan, conv: Operand, mixed: Activation, x: Activation) -> None:
    """mixed -> x, both [tokens, channels]; conv: see `convolution`."""
    plan.add(convolve_rows, conv, mixed.read("f32"), mixed.stride("f32"), x.read("f32"), plan.batch)
