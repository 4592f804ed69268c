"""The gated short convolution of LFM2 (Liquid AI, arXiv 2511.23404): y = c * conv(b * x), depthwise and causal.

A channel of a token depends on the same channel of the last few tokens, whose b * x are the state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.activation import store_output
from quant.batch import BATCH, of_one_text, position_of, slot_of
from quant.jit import inline, kernel
from quant.kernels.convolution import ring_rows
from quant.kernels.partition import start_of
from quant.layout import Layout
from quant.plan import Activation, Plan
from quant.simd import fma, load_f32x16, load_i64, mul, store_f32x16, zero_f32x16

_STATE = Layout("inputs", "ring", "slot")  # the last b * x, how many rows that are, and the bytes to the next text's


@inline
def _now(bcx, columns, c):
    """16 channels of b * x of a token, whose row is at bcx; c: bytes into a row."""
    return mul(load_f32x16(bcx + c), load_f32x16(bcx + 8 * columns + c))


@inline
def _convolve(bcx, stride, weight, conv_state, ring, taps, columns, position, here, c):
    """16 channels of c * conv(b * x) of the token at bcx; here: how many tokens before it have their rows before its own."""
    total = zero_f32x16()
    for i in range(taps):
        back = taps - 1 - i
        if back <= here:
            x = _now(bcx - back * stride, columns, c)
        else:
            x = load_f32x16(conv_state + 4 * ((position - back + ring) % ring) * columns + c)
        total = fma(x, load_f32x16(weight + 4 * i * columns + c), total)
    return mul(total, load_f32x16(bcx + 4 * columns + c))


@kernel
def convolve_gated(rank, size, bcx, stride, weight, state, taps, columns, out, batch):
    """bcx [tokens, (b, c, x)] -> out [tokens, columns] (an OUTPUT table); threads share the channels, 32 at a time."""
    tokens, ring = load_i64(batch + BATCH.tokens), load_i64(state + _STATE.ring)
    conv_state, slot = load_i64(state + _STATE.inputs), load_i64(state + _STATE.slot)
    in_turn = of_one_text(batch)
    for block in range(start_of(rank, size, columns // 32), start_of(rank + 1, size, columns // 32)):
        at = 128 * block
        for t in range(tokens):
            row, own, position = bcx + t * stride, conv_state + slot_of(batch, t) * slot, position_of(batch, t)
            here = t if in_turn else 0
            low = _convolve(row, stride, weight, own, ring, taps, columns, position, here, at)
            high = _convolve(row, stride, weight, own, ring, taps, columns, position, here, at + 64)
            store_output(low, high, columns, block, out, t)
        for t in range(max(0, tokens - ring) if in_turn else 0, tokens):
            place = conv_state + slot_of(batch, t) * slot + 4 * (position_of(batch, t) % ring) * columns
            for c in range(at, at + 128, 64):
                store_f32x16(place + c, _now(bcx + t * stride, columns, c))


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
        or len(conv_state) < ring_rows(plan, taps)
    ):
        raise ValueError(f"{columns} channels of {bcx.columns} and {out.columns} columns, state {conv_state.shape}")
    rows, (inputs, slot) = (bcx.read("f32"), bcx.stride("f32")), plan.slotted(conv_state)
    state = plan.table(_STATE, inputs=inputs, ring=len(conv_state), slot=slot)
    plan.add(convolve_gated, *rows, weight, state, taps, columns, plan.output(out), plan.batch)
