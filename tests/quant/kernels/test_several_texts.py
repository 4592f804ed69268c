"""A token of each of several texts: each gets, to the bit, what it gets alone, however many threads share the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from kernel_helpers import new_plan, replay_texts, running, texts_plan

from quant.kernels.attention import Heads, attention
from quant.kernels.delta_net import DeltaNet
from quant.kernels.delta_net_step import delta_net_step
from quant.kernels.kimi_delta import kimi_delta_step
from quant.kernels.kv_cache import row_shape
from quant.kernels.mamba2 import Mamba2, mamba2_step
from quant.kernels.short_conv import short_conv
from quant.plan import Activation, aligned

EPS, TAPS = 1e-6, 4
THREADS = [1, 2, 3, 16]


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@dataclass
class Layer:
    """A layer with a state of each text."""

    widths: tuple[int, ...]  # of its inputs
    columns: int
    state: list[np.ndarray]  # what a text begins with
    trace: Callable[..., None]  # (plan, state, inputs, out): adds the layer to a plan
    lengths: tuple[int, ...] = (7, 4, 6, 5)  # tokens of each text


def delta_net(width=32, step=delta_net_step):
    key_heads, heads = 2, 6
    channels = 2 * key_heads * 16 + heads * width
    net = DeltaNet(
        key_heads, heads, 16, width, 3,
        conv=normal(1, TAPS, channels), a=-np.abs(normal(2, heads)), norm=normal(4, width),
        dt_bias=normal(3, heads) if step is delta_net_step else normal(3, heads, 16),
        conv_state=np.zeros((TAPS, channels), np.float32), state=np.zeros((heads, width // 16, 16, 16), np.float32),
    )  # fmt: skip

    def trace(plan, state, given, out):
        step(plan, replace(net, conv_state=state[0], state=state[1]), *given, EPS, out)

    widths = channels, heads * width, heads, net.dt_bias.size
    return Layer(widths, heads * width, [aligned(s.shape, s.dtype) for s in (net.conv_state, net.state)], trace)


def mamba2():
    heads, groups, width, state_width = 6, 2, 32, 16
    channels = heads * width + 2 * groups * state_width
    state = [aligned(shape, np.float32) for shape in ((TAPS, channels), (heads, width // 16, state_width, 16))]
    weights = normal(1, TAPS, channels), normal(2, channels), -np.abs(normal(3, heads)), normal(4, heads)

    def trace(plan, state, given, out):
        net = Mamba2(heads, groups, width, state_width, *weights, normal(5, heads), normal(6, heads * width), *state)
        mamba2_step(plan, net, *given, EPS, out)

    return Layer((channels, heads * width, heads), heads * width, state, trace)


def gated_convolution():
    def trace(plan, state, given, out):
        short_conv(plan, *given, normal(1, TAPS, 96), *state, out)

    return Layer((3 * 96,), 96, [aligned((TAPS, 96), np.float32)], trace)


def full_attention(queries=6, keys=2, kv="f16", window=0):
    row, kind = row_shape(kv, 64)
    state = [aligned((keys, 256, row), kind) for _ in range(2)]

    def trace(plan, state, given, out):
        k_cache, v_cache = state
        attention(plan, *given, None, Heads(queries, keys, 64, 64, k_cache, v_cache, window=window), out)

    return Layer((64 * queries, 64 * keys, 64 * keys), 64 * queries, state, trace, (150, 3, 70, 129))


LAYERS = {
    "DeltaNet": delta_net,
    "DeltaNet, two heads to a block": lambda: delta_net(16),
    "Kimi Delta Attention": lambda: delta_net(32, kimi_delta_step),
    "Kimi Delta Attention, two heads to a block": lambda: delta_net(16, kimi_delta_step),
    "Mamba 2": mamba2,
    "short convolution": gated_convolution,
    "attention": full_attention,
    "attention, 8 bits": lambda: full_attention(kv="q8_0"),
    "attention, one head of keys": lambda: full_attention(9, 1),
    "attention with a window": lambda: full_attention(window=90),
}


def alone(layer, text):
    """Every token of a text in a plan of one token: float32 [tokens, columns], and q8 and residual rows."""
    plan, state, found = new_plan(1), [array.copy() for array in layer.state], []
    given, out = [Activation(1, width) for width in layer.widths], Activation(1, layer.columns)
    layouts = [out.read(kind) for kind in ("f32", "q8", "residual")]
    layer.trace(plan, state, given, out)
    with running(plan) as run:
        for position in range(layer.lengths[text]):
            for x, values in zip(given, inputs(layer, text), strict=True):
                x.values[:] = values[position]
            run(1, position)
            found.append([rows[0].copy() for rows in layouts])
    return found


def inputs(layer, text):
    return [normal(100 * text + i, layer.lengths[text], width) for i, width in enumerate(layer.widths)]


@pytest.mark.parametrize("make", LAYERS.values(), ids=list(LAYERS))
def test_each_gets_what_it_gets_alone(make):
    layer = make()
    texts = range(len(layer.lengths))
    expected, given_rows = [alone(layer, text) for text in texts], [inputs(layer, text) for text in texts]
    for threads in THREADS:
        rng, at = np.random.default_rng(threads), [0] * len(texts)
        plan, _ = texts_plan(len(texts), threads, *layer.state)
        given, out = [Activation(len(texts), width) for width in layer.widths], Activation(len(texts), layer.columns)
        layouts = [out.read(kind) for kind in ("f32", "q8", "residual")]
        layer.trace(plan, layer.state, given, out)
        while left := [text for text in texts if at[text] < layer.lengths[text]]:
            taken = rng.permutation(left)[: rng.integers(1, len(left) + 1)].tolist()
            for t, text in enumerate(taken):
                for x, rows in zip(given, given_rows[text], strict=True):
                    x.values[t] = rows[at[text]]
            replay_texts(plan, taken, [at[text] for text in taken])
            for t, text in enumerate(taken):
                for rows, row in zip(layouts, expected[text][at[text]], strict=True):
                    assert np.array_equal(rows[t], row)
                at[text] += 1


@pytest.mark.parametrize("make", [full_attention, lambda: full_attention(9, 1)], ids=["two heads of keys", "one"])
@pytest.mark.parametrize("threads", THREADS)
def test_some_tokens_of_one_text_attend_as_alone(make, threads):
    layer = make()
    expected, rows = alone(layer, 0), inputs(layer, 0)
    for tokens in (2, 5):
        plan, state = new_plan(tokens, threads, stepwise=True), [array.copy() for array in layer.state]
        given, out = [Activation(tokens, width) for width in layer.widths], Activation(tokens, layer.columns)
        found = out.read("f32")
        layer.trace(plan, state, given, out)
        with running(plan) as run:
            for first in range(0, layer.lengths[0] - tokens + 1, tokens):
                for x, values in zip(given, rows, strict=True):
                    x.values[:] = values[first : first + tokens]
                run(tokens, first)
                for t in range(tokens):
                    assert np.array_equal(found[t], expected[first + t][0])
