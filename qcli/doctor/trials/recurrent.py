"""Gated DeltaNet, Kimi Delta Attention and Mamba 2, a few tokens one after the other and many in chunks; short convolutions.

A step begins behind a token whose effect on the state was deferred, and defers that of all its tokens but the first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from qcli.doctor.trials.trial import (
    Experiment,
    Floats,
    Trial,
    error,
    experiment,
    given,
    new_plan,
    normal,
    replay,
    result,
)
from qcli.doctor.twins import delta_net, mamba2
from qcli.doctor.twins import short_conv as short_conv_twin
from qcli.doctor.twins.functions import Array
from quant.kernels.convolution import convolve_rows
from quant.kernels.deferred import catch_up, catch_up_heads, deferred_floats
from quant.kernels.delta_net import DeltaNet
from quant.kernels.delta_net_chunk import CHUNK, delta_chunks, delta_net_chunk, gated_norm_rows, l2_normalize_rows
from quant.kernels.delta_net_step import delta_net_step, delta_step
from quant.kernels.kimi_delta import kimi_delta_step, kimi_step
from quant.kernels.kimi_delta_chunk import kimi_chunks, kimi_delta_chunk
from quant.kernels.mamba2 import Mamba2, mamba2_heads, mamba2_step, norm_groups
from quant.kernels.mamba2_chunk import mamba2_chunk, mamba2_chunks, multiply_groups
from quant.kernels.sgemm import sgemm_kernel
from quant.kernels.short_conv import convolve_gated, short_conv
from quant.plan import aligned

_EPS: Final = 1e-6
_TAPS: Final = 4
_FEW: Final = 3
_MANY: Final = 70  # more than a chunk
_POSITION: Final = 6
_RING: Final = _TAPS + _FEW - 1

Net = DeltaNet | Mamba2
Twin = delta_net.DeltaNetTwin | mamba2.Mamba2Twin


def _state(seed: int, *shape: int) -> Floats:
    """Random numbers in memory that kernels want on a border."""
    memory = aligned(shape, np.float32)
    memory[:] = normal(seed, *shape) / 4
    return memory


def _uniform(seed: int, low: float, high: float, *shape: int) -> Floats:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def _delta_net(few: bool, by_channel: bool, lower_bound: float = 0.0, sigmoid_gate: bool = False) -> DeltaNet:
    """2 key heads and 4 value heads, two of which share one."""
    keys, values, key_dim, value_dim, decays = 2, 4, 32, 48, 32 if by_channel else 1
    channels, floats = 2 * keys * key_dim + values * value_dim, deferred_floats(key_dim, value_dim, decays)
    decay = _uniform(1, 0.01, 2, values)
    return DeltaNet(
        keys, values, key_dim, value_dim, 2,
        conv=normal(2, _TAPS, channels),
        a=decay if lower_bound else -decay,
        dt_bias=normal(3, values, key_dim) if by_channel else normal(3, values),
        norm=_uniform(4, 0.5, 2, value_dim),
        conv_state=_state(5, _RING if few else _TAPS, channels),
        state=_state(6, values, value_dim // 16, key_dim, 16),
        sigmoid_gate=sigmoid_gate,
        lower_bound=lower_bound,
        deferred=_deferred(values, key_dim, value_dim, floats) if few else None,
    )  # fmt: skip


def _mamba2(few: bool) -> Mamba2:
    """4 heads in 2 groups."""
    heads, groups, width, state_width = 4, 2, 48, 32
    columns, floats = heads * width, deferred_floats(state_width, width)
    channels = columns + 2 * groups * state_width
    return Mamba2(
        heads, groups, width, state_width,
        conv=normal(1, _TAPS, channels),
        conv_bias=normal(2, channels),
        a=-_uniform(3, 0.01, 2, heads),
        d=normal(4, heads),
        dt_bias=normal(5, heads),
        norm=_uniform(6, 0.5, 2, columns),
        conv_state=_state(7, _RING if few else _TAPS, channels),
        state=_state(8, heads, width // 16, state_width, 16),
        deferred=_deferred(heads, state_width, width, floats) if few else None,
    )  # fmt: skip


def _deferred(heads: int, key_dim: int, value_dim: int, floats: int) -> Floats:
    """What a token before the first one adds to each head's state: its key, its delta, its decays."""
    memory = _state(9, _FEW - 1, heads, floats)
    memory[..., key_dim + value_dim :] = 0.75
    return memory


def _inputs(widths: list[int], tokens: int) -> list[Floats]:
    return [normal(20 + i, tokens, width) for i, width in enumerate(widths)]


def _delta_net_inputs(net: DeltaNet, tokens: int) -> list[Floats]:
    """mixed, z, beta and alpha."""
    return _inputs([net.channels, net.value_columns, net.value_heads, net.dt_bias.size], tokens)


def _mamba2_inputs(net: Mamba2, tokens: int) -> list[Floats]:
    """mixed, z and dt."""
    return _inputs([net.channels, net.columns, net.heads], tokens)


def _begun(twin: Twin, state: Array) -> None:
    """Bring a twin to where its net is at _POSITION: state [heads, key, value]."""
    twin.state = state.astype(np.float64)
    inputs = twin.net.conv_state
    twin.conv_state = inputs[[(_POSITION - back) % len(inputs) for back in range(_TAPS - 1, 0, -1)]]


def _catch_up(twin: Twin, deferred: Array) -> None:
    """Let the state of a twin see a token that was deferred, [heads, floats]."""
    _, key_dim, value_dim = twin.state.shape
    k, delta, decay = deferred[:, :key_dim], deferred[:, key_dim : key_dim + value_dim], deferred[:, -16]
    twin.state = twin.state * decay[:, None, None] + k[..., None] * delta[:, None]


def _few_tokens(
    net: Net, twin: Twin, state_of: Callable[[Any], Array], inputs: list[Floats], step: Callable[..., None]
) -> Experiment:
    """A step, all of whose tokens turn out to be right, so that the state catches up with them."""
    _begun(twin, state_of(net))
    assert net.deferred is not None
    _catch_up(twin, net.deferred[0].astype(np.float64))
    rows, states = [], []
    for token in zip(*inputs, strict=True):
        rows.append(_made_by(twin, *token))
        states.append(twin.state.copy())
    plan, out, behind = new_plan(_FEW, stepwise=True), result(_FEW, len(rows[0])), new_plan(1)
    step(plan, net, *map(given, inputs), _EPS, out)
    catch_up(behind, net)

    def errors() -> list[float]:
        replay(plan, _POSITION, 1)
        made = plan.activation("mamba", out.columns) if isinstance(net, Mamba2) else out
        stepped = [max(error(made.values, rows), error(state_of(net), states[0]))]
        if isinstance(twin, mamba2.Mamba2Twin):
            stepped.append(error(out.values, [twin.finish(row, _EPS) for row in made.values.astype(np.float64)]))
        replay(behind, _POSITION + _FEW, _FEW - 1)
        return [*stepped, error(state_of(net), states[-1])]

    return Experiment((*plan.kernels, *behind.kernels), errors)


def _made_by(twin: Twin, mixed: Array, z: Array, *gates: Array) -> Array:
    """What the kernel of a step makes of a token: all of it, or of Mamba 2 outputs before they are normed."""
    if isinstance(twin, mamba2.Mamba2Twin):
        return twin.recur(*twin.split(twin.convolve(mixed)), z, gates[0])
    return twin.step(mixed, z, gates[0], gates[1], _EPS)


def _delta_net_step(step: Callable[..., None], **how: Any) -> Experiment:
    net = _delta_net(True, step is kimi_delta_step, **how)
    return _few_tokens(net, delta_net.DeltaNetTwin(net), delta_net.state_of, _delta_net_inputs(net, _FEW), step)


def _mamba2_step() -> Experiment:
    net = _mamba2(True)
    return _few_tokens(net, mamba2.Mamba2Twin(net), mamba2.state_of, _mamba2_inputs(net, _FEW), mamba2_step)


def _delta_net_chunk(chunk: Callable[..., None], **how: Any) -> Experiment:
    net = _delta_net(False, chunk is kimi_delta_chunk, **how)
    twin, inputs = delta_net.DeltaNetTwin(net), _delta_net_inputs(net, _MANY)
    _begun(twin, delta_net.state_of(net))
    plan, out = new_plan(_MANY), result(_MANY, net.value_columns)
    chunk(plan, net, *map(given, inputs), _EPS, out)
    convolved, o = plan.activation("convolved", net.channels), plan.activation("delta", net.value_columns)
    mixed, z, beta, alpha = inputs
    parts = [twin.convolve(row) for row in mixed]
    flat = np.array([np.concatenate([part.reshape(-1) for part in token]) for token in parts])
    keys = 2 * net.key_heads * net.key_dim

    def recurred() -> float:
        """What heads read, and the state that is left."""
        there = [twin.split(row.astype(np.float64)) for row in convolved.values]
        rows = [twin.recur(*token, b, a).reshape(-1) for token, b, a in zip(there, beta, alpha, strict=True)]
        return max(error(o.values, rows), error(delta_net.state_of(net), twin.state))

    def finished() -> float:
        heads = o.values.astype(np.float64).reshape(_MANY, net.value_heads, -1)
        return error(out.values, [twin.finish(row, gate, _EPS) for row, gate in zip(heads, z, strict=True)])

    return experiment(
        plan,
        lambda: error(convolved.values[:, keys:], flat[:, keys:]),
        lambda: error(convolved.values[:, :keys], flat[:, :keys]),
        recurred,
        finished,
        position=_POSITION,
    )


def _mamba2_chunk() -> Experiment:
    net = _mamba2(False)
    twin, inputs = mamba2.Mamba2Twin(net), _mamba2_inputs(net, _MANY)
    _begun(twin, mamba2.state_of(net))
    plan, out = new_plan(_MANY), result(_MANY, net.columns)
    mixed, z, dt = inputs
    mamba2_chunk(plan, net, given(mixed), given(z), given(dt), _EPS, out)
    convolved, y = plan.activation("convolved", net.channels), plan.activation("mamba", net.columns)
    items = -(-_MANY // CHUNK) * net.groups
    products = plan.buffer("mamba products", (items, CHUNK, CHUNK), np.float32)

    def multiplied() -> float:
        """c . b of the first chunk, for each group."""
        tokens = [twin.split(row.astype(np.float64)) for row in convolved.values[:CHUNK]]
        b, c = (np.array([token[i] for token in tokens]) for i in (1, 2))
        return error(products[: net.groups], np.einsum("tgs,ugs->gtu", c, b))

    def recurred() -> float:
        there = [twin.split(row.astype(np.float64)) for row in convolved.values]
        rows = [twin.recur(*token, gate, step) for token, gate, step in zip(there, z, dt, strict=True)]
        return max(error(y.values, rows), error(mamba2.state_of(net), twin.state))

    return experiment(
        plan,
        lambda: error(convolved.values, [twin.convolve(row) for row in mixed]),
        multiplied,
        recurred,
        lambda: error(out.values, [twin.finish(row, _EPS) for row in y.values.astype(np.float64)]),
        position=_POSITION,
    )


def _short_conv(tokens: int) -> Experiment:
    """The last tokens of a text, the others of which are in the state."""
    first, columns = _POSITION, 64
    bcx, weight = normal(1, first + tokens, 3 * columns), normal(2, _TAPS, columns)
    b, _, x = np.split(bcx, 3, axis=1)
    state = aligned((_TAPS, columns), np.float32)
    for p in range(first - _TAPS, first):
        state[p % _TAPS] = (b * x)[p]
    plan, out = new_plan(tokens), result(tokens, columns)
    short_conv(plan, given(bcx[first:]), weight, state, out)
    last = [p % _TAPS for p in range(first + tokens - min(tokens, _TAPS), first + tokens)]

    def wrong() -> float:
        expected = short_conv_twin.short_conv(bcx, weight)[first:]
        return max(error(out.values, expected), error(state[last], (b * x)[-len(last) :]))

    return experiment(plan, wrong, position=first)


def _sgemm() -> Experiment:
    """Whole blocks of rows and columns, and what is left of them, added to what was there."""
    a, b, c = (_state(seed, *shape) for seed, shape in enumerate([(7, 20), (20, 48), (7, 48)]))
    expected = c + a.astype(np.float64) @ b

    def errors() -> list[float]:
        operands = (word for matrix in (a, b, c) for word in (matrix.ctypes.data, matrix.strides[0]))
        sgemm_kernel(*operands, 7, 48, 20, 1)
        return [error(c, expected)]

    return Experiment((sgemm_kernel,), errors)


_BEFORE: Final = convolve_rows, l2_normalize_rows
TRIALS: Final = (
    Trial((sgemm_kernel,), _sgemm),
    Trial((delta_step, catch_up_heads), partial(_delta_net_step, delta_net_step)),
    Trial((delta_step, catch_up_heads), partial(_delta_net_step, delta_net_step, sigmoid_gate=True)),
    Trial((kimi_step, catch_up_heads), partial(_delta_net_step, kimi_delta_step)),
    Trial((kimi_step, catch_up_heads), partial(_delta_net_step, kimi_delta_step, lower_bound=-5.0)),
    Trial((*_BEFORE, delta_chunks, gated_norm_rows), partial(_delta_net_chunk, delta_net_chunk)),
    Trial((*_BEFORE, delta_chunks, gated_norm_rows), partial(_delta_net_chunk, delta_net_chunk, sigmoid_gate=True)),
    Trial((*_BEFORE, kimi_chunks, gated_norm_rows), partial(_delta_net_chunk, kimi_delta_chunk)),
    Trial((*_BEFORE, kimi_chunks, gated_norm_rows), partial(_delta_net_chunk, kimi_delta_chunk, lower_bound=-5.0)),
    Trial((mamba2_heads, norm_groups, catch_up_heads), _mamba2_step),
    Trial((convolve_rows, multiply_groups, mamba2_chunks, norm_groups), _mamba2_chunk),
    Trial((convolve_gated,), partial(_short_conv, 1)),
    Trial((convolve_gated,), partial(_short_conv, 5)),
)
