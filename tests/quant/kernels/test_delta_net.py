"""Gated DeltaNet and Kimi Delta Attention: a token at a time, in chunks, and both mixed."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
from kernel_helpers import float_matrix, new_plan, random_rows, running

from qcli.doctor.twins.delta_net import DeltaNetTwin, state_of
from qcli.doctor.twins.functions import silu
from qcli.doctor.twins.matmul import size
from quant.kernels.delta_net import DeltaNet
from quant.kernels.delta_net_chunk import delta_net_chunk
from quant.kernels.delta_net_step import delta_net_step
from quant.kernels.kimi_delta import kimi_delta_step
from quant.kernels.kimi_delta_chunk import kimi_delta_chunk
from quant.kernels.matmul import add_matmul
from quant.plan import Activation, aligned

EPS = 1e-6


def new_net(key_heads, value_heads, key_dim, value_dim, share, taps=4, seed=0) -> DeltaNet:
    rng, channels = np.random.default_rng(seed), 2 * key_heads * key_dim + value_heads * value_dim
    return DeltaNet(
        key_heads, value_heads, key_dim, value_dim, share,
        conv=rng.standard_normal((taps, channels)).astype(np.float32),
        a=-rng.uniform(0.01, 2, value_heads).astype(np.float32),
        dt_bias=rng.standard_normal(value_heads).astype(np.float32),
        norm=rng.uniform(0.5, 2, value_dim).astype(np.float32),
        conv_state=aligned((taps, channels), np.float32),
        state=aligned((value_heads, value_dim // 16, key_dim, 16), np.float32),
    )  # fmt: skip


def by_channel(net, lower_bound=0.0, seed=2) -> DeltaNet:
    """The same with a decay of each channel of the key, bounded or not."""
    biases = np.random.default_rng(seed).standard_normal((net.value_heads, net.key_dim)).astype(np.float32)
    return replace(net, dt_bias=biases, lower_bound=lower_bound, a=-net.a if lower_bound else net.a)


def is_by_channel(net) -> bool:
    return net.dt_bias.ndim == 2


KINDS = {
    "a decay of each head": lambda net: net,
    "a decay of each channel": by_channel,
    "bounded decays": lambda net: by_channel(net, -5.0),
}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def kind(request):
    """Makes of a net one of this kind."""
    return request.param


@dataclass
class Inputs:
    """What the projections of a layer give: mixed [tokens, channels], z, beta and alpha."""

    mixed: np.ndarray
    z: np.ndarray
    beta: np.ndarray
    alpha: np.ndarray

    @classmethod
    def random(cls, net, tokens, seed=1):
        rng = np.random.default_rng(seed)
        return cls(*(rng.standard_normal((tokens, width)).astype(np.float32) for width in widths_of(net)))

    def parts(self):
        return self.mixed, self.z, self.beta, self.alpha


def widths_of(net):
    return net.channels, net.value_columns, net.value_heads, net.dt_bias.size


@dataclass
class Layer:
    """A net and the plans that move it on, kept by the number of their tokens."""

    net: DeltaNet
    threads: int = 1
    position: int = 0
    plans: dict = field(default_factory=dict)

    def run(self, inputs, sizes):
        """Feed the next tokens in pieces of these sizes; [tokens, value columns]."""
        with ExitStack() as teams:
            return np.vstack([self._feed(inputs, size, run) for size, run in self._runs(teams, sizes)])

    def _runs(self, teams, sizes):
        """Each size with what replays its plan."""
        self.plans |= {size: self._plan(size) for size in set(sizes) - self.plans.keys()}
        runs = {size: teams.enter_context(running(self.plans[size][0])) for size in set(sizes)}
        return [(size, runs[size]) for size in sizes]

    def _feed(self, inputs, size, run):
        _, given, out = self.plans[size]
        for activation, values in zip(given, inputs.parts(), strict=True):
            activation.values[:] = values[self.position : self.position + size]
        run(size, self.position)
        self.position += size
        return out.values.copy()

    def _plan(self, tokens):
        net, plan = self.net, new_plan(tokens, self.threads)
        given, out = [Activation(tokens, width) for width in widths_of(net)], Activation(tokens, net.value_columns)
        ways = (kimi_delta_step, kimi_delta_chunk) if is_by_channel(net) else (delta_net_step, delta_net_chunk)
        ways[tokens > 1](plan, net, *given, EPS, out)
        return plan, given, out


def twin_of(net, inputs):
    """Every token by the twin: [tokens, value columns], and the twin with its state."""
    twin = DeltaNetTwin(net)
    return np.array([twin.step(*row, EPS) for row in zip(*inputs.parts(), strict=True)]), twin


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def paper_net():
    """One head of 16 by 32 that forgets nothing, believes everything, and whose convolution is the input."""
    net = new_net(1, 1, 16, 32, share=1)
    net.conv[:] = np.array([0, 0, 0, 1])[:, None]
    net.a[:] = 0
    net.norm[:] = 1
    return net


def paper_inputs(keys, values, queries):
    """silu of 40 is 40, of -40 is 0: unit vectors for keys and queries, one lane of 40 for values."""
    tokens = len(keys)
    mixed = np.full((tokens, 64), -40, np.float32)
    for t in range(tokens):
        mixed[t, [queries[t], 16 + keys[t], 32 + values[t]]] = 40
    z = np.full((tokens, 32), 40, np.float32)
    return Inputs(mixed, z, np.full((tokens, 1), 40, np.float32), np.zeros((tokens, 1), np.float32))


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [4], [2, 2]])
def test_what_was_written_under_a_key_is_read_and_replaced(sizes):
    """The delta rule: a second value under one key takes the place of the first, others stay."""
    out = Layer(paper_net()).run(paper_inputs([3, 5, 3, 7], [0, 1, 2, 9], [3, 3, 3, 5]), sizes)
    # the norm makes sqrt(32) of the one lane that was found, and the gate multiplies by 40
    assert out.argmax(axis=1).tolist() == [0, 0, 2, 1]
    np.testing.assert_allclose(out.max(axis=1), 40 * np.sqrt(32), rtol=1e-5)
    assert np.abs(np.sort(out, axis=1)[:, :-1]).max() < 1e-4


@pytest.mark.parametrize("sizes", [[1, 1], [2]])
def test_a_strong_decay_forgets(sizes):
    net = paper_net()
    net.a[:] = -1000
    inputs = paper_inputs([3, 5], [0, 1], [3, 5])
    inputs.alpha[:] = 3
    Layer(net).run(inputs, sizes)
    state = state_of(net)[0]
    assert np.abs(state[3]).max() < 1e-12
    assert state[5, 1] == pytest.approx(40)


@pytest.mark.parametrize("sizes", [[1, 1], [2]])
def test_a_channel_forgets_by_itself(sizes):
    net = by_channel(paper_net())
    net.a[:], net.dt_bias[:] = -1, -100  # no channel forgets anything, but for one
    net.dt_bias[0, 3] = 100
    Layer(net).run(replace(paper_inputs([3, 5], [0, 1], [3, 5]), alpha=np.zeros((2, 16), np.float32)), sizes)
    assert np.abs(state_of(net)[0, 3]).max() < 1e-12
    net = by_channel(paper_net())
    net.a[:], net.dt_bias[:] = -1, -100
    Layer(net).run(replace(paper_inputs([3, 5], [0, 1], [3, 5]), alpha=np.zeros((2, 16), np.float32)), sizes)
    assert state_of(net)[0, 3, 0] == pytest.approx(40)


@pytest.mark.parametrize("sizes", [[1, 1], [2]])
def test_without_belief_nothing_is_written(sizes):
    net, inputs = paper_net(), paper_inputs([3, 5], [0, 1], [3, 5])
    inputs.beta[:] = -200
    assert not Layer(net).run(inputs, sizes).any()
    assert not net.state.any()


@pytest.mark.parametrize("sizes", [[1] * 5, [5], [2, 3], [1, 3, 1]])
def test_the_convolution_sees_the_last_inputs(sizes):
    net = paper_net()
    net.conv[:, 32:] = 0
    net.conv[0, 32:] = 1  # a value is what was given three tokens before
    inputs = paper_inputs([3] * 5, [0, 1, 2, 3, 4], [3] * 5)
    out = Layer(net).run(inputs, sizes)
    assert not out[:3].any()
    assert out[3:].argmax(axis=1).tolist() == [0, 1]


SHAPES = [
    (2, 4, 16, 32, 2),  # value head j uses key head j // 2
    (2, 4, 32, 32, 1),  # value head j uses key head j % 2
    (2, 6, 16, 32, 3),
    (1, 1, 64, 64, 1),
    (2, 2, 32, 96, 1),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tokens", [1, 2, 7, 9, 65])
def test_both_ways_against_the_twin(kind, shape, tokens):
    inputs = Inputs.random(kind(new_net(*shape)), tokens)
    expected, twin = twin_of(kind(new_net(*shape)), inputs)
    for sizes in ([1] * tokens, [tokens]):
        layer = Layer(kind(new_net(*shape)))
        assert error(layer.run(inputs, sizes), expected) < 3e-6
        assert error(state_of(layer.net), twin.state) < 3e-6


@pytest.mark.parametrize("sizes", [[1] * 9, [9]])
def test_outputs_may_be_gated_by_sigmoids(sizes):
    net = replace(new_net(2, 4, 32, 32, share=2), sigmoid_gate=True)
    inputs = Inputs.random(net, 9)
    expected, _ = twin_of(net, inputs)
    assert error(Layer(net).run(inputs, sizes), expected) < 1e-5


def test_heads_share_keys_in_both_orders():
    inputs = Inputs.random(new_net(2, 4, 16, 32, 2), 3)
    together, apart = (Layer(new_net(2, 4, 16, 32, share)).run(inputs, [3]) for share in (2, 1))
    assert np.array_equal(together[:, :32], apart[:, :32])
    assert np.array_equal(together[:, 96:], apart[:, 96:])
    assert not np.allclose(together[:, 32:96], apart[:, 32:96])


TOTAL = 130


@pytest.fixture(scope="module")
def stepped():
    """Of a kind: inputs, the outputs of steps, and the net after them."""

    @cache
    def of(kind):
        net = kind(new_net(2, 4, 32, 32, share=2))
        inputs = Inputs.random(net, TOTAL)
        return inputs, Layer(net).run(inputs, [1] * TOTAL), net

    return of


@pytest.mark.parametrize("first", [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 130])
def test_steps_and_chunks_agree_wherever_they_are_split(kind, stepped, first):
    inputs, expected, net = stepped(kind)
    for sizes in ([first, TOTAL - first], [first, *[1] * (TOTAL - first)], [*[1] * (TOTAL - first), first]):
        layer = Layer(kind(new_net(2, 4, 32, 32, share=2)))
        assert error(layer.run(inputs, [size for size in sizes if size]), expected) < 3e-6
        assert error(layer.net.state, net.state) < 3e-6


@pytest.mark.parametrize("size", [3, 5, 10, 26, 65])
def test_many_small_chunks(kind, stepped, size):
    inputs, expected, net = stepped(kind)
    layer = Layer(kind(new_net(2, 4, 32, 32, share=2)))
    sizes = [size] * (TOTAL // size) + ([TOTAL % size] if TOTAL % size else [])
    assert error(layer.run(inputs, sizes), expected) < 3e-6
    assert error(layer.net.state, net.state) < 3e-6


def decaying(kind, decay):
    net = kind(new_net(1, 2, 32, 32, share=2))
    net.a[:] = -decay if net.lower_bound else decay
    return net


@cache
def long_text(kind, decay):
    """Its inputs, and the twin's outputs and last state."""
    net = decaying(kind, decay)
    inputs = Inputs.random(net, 512)
    expected, twin = twin_of(net, inputs)
    return inputs, expected, twin.state


@pytest.mark.parametrize("decay", [-0.001, -1.0, -30.0])
@pytest.mark.parametrize("size", [1, 128])
def test_512_tokens_do_not_drift(kind, decay, size):
    """A state that hardly forgets, one that does, and one whose running sum of decays leaves float32's exponents."""
    (inputs, expected, state), net = long_text(kind, decay), decaying(kind, decay)
    found = Layer(net).run(inputs, [size] * (512 // size))
    assert error(found, expected) < 2e-5
    assert error(found[-32:], expected[-32:]) < 2e-5
    assert error(state_of(net), state) < 2e-5


@pytest.mark.parametrize("sizes", [[1, 1, 1], [3], [70]])
def test_the_number_of_threads_changes_no_bit(kind, sizes):
    inputs = Inputs.random(kind(new_net(2, 4, 32, 32, share=2)), sum(sizes))
    one = Layer(kind(new_net(2, 4, 32, 32, share=2)))
    expected = one.run(inputs, sizes)
    for threads in (2, 3, 5):
        other = Layer(kind(new_net(2, 4, 32, 32, share=2)), threads)
        assert np.array_equal(other.run(inputs, sizes), expected)
        assert np.array_equal(other.net.state, one.net.state)


@pytest.mark.parametrize("sizes", [[1] * 6, [6]])
@pytest.mark.parametrize("taps", [2, 3, 4])
def test_other_convolutions(taps, sizes):
    net = new_net(1, 2, 16, 32, share=2, taps=taps)
    inputs = Inputs.random(net, 6)
    assert error(Layer(net).run(inputs, sizes), twin_of(net, inputs)[0]) < 3e-6


@pytest.mark.parametrize("tokens", [1, 4, 40])
def test_extreme_gates_stay_finite(kind, tokens):
    net = kind(new_net(1, 2, 16, 32, share=2))
    inputs = Inputs.random(net, tokens)
    inputs.alpha[:], inputs.beta[:] = np.resize([300, -300], net.dt_bias.size), [[-300, 300]]
    found = Layer(net).run(inputs, [tokens])
    assert np.isfinite(found).all()
    with np.errstate(over="ignore"):
        expected = twin_of(net, inputs)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 3])
def test_readers_of_all_layouts_are_served(tokens):
    net = new_net(2, 8, 16, 32, share=4)
    layer, inputs, rng = Layer(net, threads=3), Inputs.random(net, tokens), np.random.default_rng(2)
    plan, _, out = layer.plans[tokens] = layer._plan(tokens)
    matrices = [random_rows(rng, "Q4_K", 16, 256), float_matrix("F32", rng.standard_normal((16, 256)))]
    results = [Activation(tokens, 16) for _ in matrices]
    for w, y in zip(matrices, results, strict=True):
        add_matmul(plan, out, w, y)
    values = layer.run(inputs, [tokens])
    for w, y, limit in zip(matrices, results, (1e-4, 1e-6), strict=True):
        true = values @ w.format.dequantize(w.data).T
        assert np.abs((y.values - true) / size(values, w)).max() < limit


def test_shares_end_where_blocks_of_columns_do(kind):
    """Two heads of 16 columns are quantized together: it must not matter which share, of how many, comes first."""
    net, rows = kind(new_net(2, 6, 16, 16, share=3)), []
    inputs = Inputs.random(net, 1)
    for shares in ([0], [0, 1], [1, 0], [4, 2, 0, 1, 3]):
        plan, given, out = Layer(replace(net, state=np.zeros_like(net.state)))._plan(1)
        quantized = out.read("q8")
        for activation, values in zip(given, inputs.parts(), strict=True):
            activation.values[:] = values
        plan.threads = len(shares)  # for scratch memory
        (record,) = plan.compile()
        step = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(int(record[0]))
        plan.batch.set(1, 0)
        for rank in shares:
            step(rank, len(shares), *record[2:8].tolist())
        rows.append(quantized.copy())
    assert all(np.array_equal(row, rows[0]) for row in rows)


def test_shapes_are_checked():
    net = new_net(1, 2, 16, 32, share=2)
    with pytest.raises(ValueError, match="channels"):
        DeltaNet(**{**vars(net), "value_heads": 3})
    with pytest.raises(ValueError, match="multiples of 16"):
        DeltaNet(**{**vars(net), "norm": net.norm[:16]})
    for part in ({"a": net.a[:1]}, {"dt_bias": np.zeros((2, 32), np.float32)}):
        with pytest.raises(ValueError, match="2 value heads"):
            replace(net, **part)


def test_the_twin_does_the_paper_example():
    """The twin itself, on the first token: o = v, since k and q are the same unit vector."""
    net, inputs = paper_net(), paper_inputs([3], [0], [3])
    out = twin_of(net, inputs)[0][0]
    expected = np.zeros(32)
    expected[0] = np.sqrt(32) * silu(40.0)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-12)
