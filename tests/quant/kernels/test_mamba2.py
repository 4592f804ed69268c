"""Mamba 2: a token at a time, in chunks, and both mixed."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
from kernel_helpers import new_plan, random_rows, running

from qcli.doctor.twins.mamba2 import Mamba2Twin, state_of
from quant.kernels.deferred import catch_up, deferred_floats
from quant.kernels.mamba2 import Mamba2, mamba2_step
from quant.kernels.mamba2_chunk import mamba2_chunk
from quant.kernels.matmul import add_matmul
from quant.plan import Activation, aligned

EPS = 1e-5


def new_net(heads, groups, width, state_width, taps=4, seed=0, *, most_tokens=1) -> Mamba2:
    floats = deferred_floats(state_width, width)
    deferred = aligned((most_tokens - 1, heads, floats), np.float32) if most_tokens > 1 else None
    rng, columns = np.random.default_rng(seed), heads * width
    channels = columns + 2 * groups * state_width

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return Mamba2(
        heads, groups, width, state_width,
        conv=normal(taps, channels),
        conv_bias=normal(channels),
        a=-rng.uniform(0.01, 2, heads).astype(np.float32),
        d=normal(heads),
        dt_bias=normal(heads),
        norm=rng.uniform(0.5, 2, columns).astype(np.float32),
        conv_state=aligned((taps + most_tokens - 1, channels), np.float32),
        state=aligned((heads, width // 16, state_width, 16), np.float32),
        deferred=deferred,
    )  # fmt: skip


@dataclass
class Inputs:
    """What the projection of a layer gives: mixed [tokens, channels], z [tokens, columns] and dt [tokens, heads]."""

    mixed: np.ndarray
    z: np.ndarray
    dt: np.ndarray

    @classmethod
    def random(cls, net, tokens, seed=1):
        rng = np.random.default_rng(seed)
        widths = net.channels, net.columns, net.heads
        return cls(*(rng.standard_normal((tokens, width)).astype(np.float32) for width in widths))

    def parts(self):
        return self.mixed, self.z, self.dt


@dataclass
class Layer:
    """A net and the plans that move it on, kept by the number of their tokens."""

    net: Mamba2
    threads: int = 1
    position: int = 0
    plans: dict = field(default_factory=dict)

    def run(self, inputs, sizes):
        """Feed the next tokens in pieces of these sizes; [tokens, columns]."""
        with ExitStack() as teams:
            return np.vstack([self._feed(inputs, size, run) for size, run in self._runs(teams, sizes)])

    def _runs(self, teams, sizes):
        """Each size with what replays its plan."""
        self.plans |= {size: self.plan(size) for size in set(sizes) - self.plans.keys()}
        runs = {size: teams.enter_context(running(self.plans[size][0])) for size in set(sizes)}
        return [(size, runs[size]) for size in sizes]

    def _feed(self, inputs, size, run):
        _, given, out = self.plans[size]
        for activation, values in zip(given, inputs.parts(), strict=True):
            activation.values[:] = values[self.position : self.position + size]
        run(size, self.position)
        self.position += size
        return out.values.copy()

    def plan(self, tokens, stepwise=False):
        net, plan = self.net, new_plan(tokens, self.threads, stepwise)
        given = [Activation(tokens, width) for width in (net.channels, net.columns, net.heads)]
        out = Activation(tokens, net.columns)
        out.read("f32")
        (mamba2_step if plan.stepwise else mamba2_chunk)(plan, net, *given, EPS, out)
        return plan, given, out


def twin_of(net, inputs):
    """Every token by the twin: [tokens, columns], and the twin with its state."""
    twin = Mamba2Twin(net)
    return np.array([twin.step(*row, EPS) for row in zip(*inputs.parts(), strict=True)]), twin


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def paper_net():
    """Two heads of 16 by 16 of one group: nothing is forgotten, nothing passes by, and the convolution is the input."""
    net = new_net(2, 1, 16, 16)
    net.conv[:] = np.array([0, 0, 0, 1])[:, None]
    net.conv_bias[:] = 0
    net.a[:] = 0
    net.d[:] = 0
    net.dt_bias[:] = 0
    net.norm[:] = 1
    return net


def paper_inputs(values, keys, queries):
    """silu of 40 is 40, of -40 is 0: unit vectors; values for the first head, the second has none."""
    mixed = np.full((len(keys), 64), -40, np.float32)
    for t in range(len(keys)):
        mixed[t, [values[t], 32 + keys[t], 48 + queries[t]]] = 40
    return Inputs(mixed, np.full((len(keys), 32), 40, np.float32), np.full((len(keys), 2), 30, np.float32))


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [4], [2, 2]])
def test_values_under_one_key_add_up(sizes):
    """Three values under the keys 3, 5 and 3: what is read under 3 is the first and the third, under 7 nothing."""
    out = Layer(paper_net()).run(paper_inputs([0, 1, 2, 9], [3, 5, 3, 8], [3, 3, 3, 7]), sizes)
    np.testing.assert_allclose(out[:2, 0], np.sqrt(32), rtol=1e-5)  # all of the norm is in one of 32 columns
    np.testing.assert_allclose(out[2, [0, 2]], 4, rtol=1e-5)  # in two
    assert np.abs(out[3]).max() < 1e-5
    assert np.abs(out[:, 16:]).max() < 1e-5


@pytest.mark.parametrize("sizes", [[1, 1], [2]])
def test_a_state_decays_by_a_times_the_step(sizes):
    net = paper_net()
    net.a[:] = -np.log(2) / 30  # and the step is softplus(30) = 30
    Layer(net).run(paper_inputs([0, 1], [3, 5], [3, 3]), sizes)
    state = state_of(net)[0]
    np.testing.assert_allclose([state[3, 0], state[5, 1]], [30 * 40 * 40 / 2, 30 * 40 * 40], rtol=1e-5)


@pytest.mark.parametrize("sizes", [[1, 1], [2]])
def test_what_passes_by_the_state(sizes):
    net = paper_net()
    net.d[:] = 7
    net.norm[:] = 3
    out = Layer(net).run(paper_inputs([0, 1], [3, 3], [4, 4]), sizes)  # what was stored is not read
    np.testing.assert_allclose(out[[0, 1], [0, 1]], 3 * np.sqrt(32), rtol=1e-5)


SHAPES = [
    # heads, groups, width, state
    (4, 2, 16, 16),
    (4, 1, 32, 48),
    (6, 3, 80, 16),
    (2, 2, 64, 128),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tokens", [1, 2, 7, 65])
def test_both_ways_against_the_twin(shape, tokens):
    inputs = Inputs.random(new_net(*shape), tokens)
    expected, twin = twin_of(new_net(*shape), inputs)
    for sizes in ([1] * tokens, [tokens]):
        layer = Layer(new_net(*shape))
        assert error(layer.run(inputs, sizes), expected) < 3e-6
        assert error(state_of(layer.net), twin.state) < 5e-6


TOTAL = 130


@pytest.fixture(scope="module")
def stepped():
    net = new_net(4, 2, 32, 32)
    inputs = Inputs.random(net, TOTAL)
    return inputs, Layer(net).run(inputs, [1] * TOTAL), net


@pytest.mark.parametrize("first", [1, 2, 63, 64, 65, 129, 130])
def test_steps_and_chunks_agree_wherever_they_are_split(stepped, first):
    inputs, expected, net = stepped
    for sizes in ([first, TOTAL - first], [first, *[1] * (TOTAL - first)], [*[1] * (TOTAL - first), first]):
        layer = Layer(new_net(4, 2, 32, 32))
        assert error(layer.run(inputs, [size for size in sizes if size]), expected) < 3e-6
        assert error(layer.net.state, net.state) < 3e-6


@pytest.mark.parametrize("size", [3, 26])
def test_many_small_chunks(stepped, size):
    inputs, expected, net = stepped
    layer = Layer(new_net(4, 2, 32, 32))
    sizes = [size] * (TOTAL // size) + ([TOTAL % size] if TOTAL % size else [])
    assert error(layer.run(inputs, sizes), expected) < 3e-6
    assert error(layer.net.state, net.state) < 3e-6


def decaying(decay):
    net = new_net(2, 1, 16, 32)
    net.a[:] = decay
    return net


@cache
def long_text(decay):
    """Its inputs, and the twin's outputs and last state."""
    net = decaying(decay)
    inputs = Inputs.random(net, 2048)
    expected, twin = twin_of(net, inputs)
    return inputs, expected, twin.state


@pytest.mark.parametrize("decay", [-0.001, -1.0, -30.0])
@pytest.mark.parametrize("size", [1, 128])
def test_2048_tokens_do_not_drift(decay, size):
    """A state that hardly forgets, one that does, and one whose running sum of decays leaves float32's exponents."""
    (inputs, expected, state), net = long_text(decay), decaying(decay)
    found = Layer(net).run(inputs, [size] * (2048 // size))
    assert error(found, expected) < 2e-5
    assert error(found[-32:], expected[-32:]) < 2e-5
    assert error(state_of(net), state) < 2e-5


def test_small_steps_after_large_ones_are_not_lost():
    """A sum of decays of -320 and of -0.01 alike: float32 alone would take the small ones for 0.0002 more or less."""
    net = new_net(2, 1, 16, 32)
    net.a[:], net.dt_bias[:] = -16, 0
    inputs = Inputs.random(net, 256)
    inputs.dt[:] = np.where(np.random.default_rng(3).random(inputs.dt.shape) < 0.1, 20, -7)
    expected, twin = twin_of(net, inputs)
    assert error(Layer(net).run(inputs, [128, 128]), expected) < 3e-6
    assert error(state_of(net), twin.state) < 3e-6


@pytest.mark.parametrize("sizes", [[1, 1, 1], [3], [70]])
def test_the_number_of_threads_changes_no_bit(sizes):
    inputs = Inputs.random(new_net(4, 2, 16, 32), sum(sizes))
    one = Layer(new_net(4, 2, 16, 32))
    expected = one.run(inputs, sizes)
    for threads in (2, 3, 5):
        other = Layer(new_net(4, 2, 16, 32), threads)
        assert np.array_equal(other.run(inputs, sizes), expected)
        assert np.array_equal(other.net.state, one.net.state)
        assert np.array_equal(other.net.conv_state, one.net.conv_state)


@pytest.mark.parametrize("sizes", [[1] * 6, [6]])
@pytest.mark.parametrize("taps", [2, 3])
def test_other_convolutions(taps, sizes):
    net = new_net(2, 1, 16, 32, taps=taps)
    inputs = Inputs.random(net, 6)
    assert error(Layer(net).run(inputs, sizes), twin_of(net, inputs)[0]) < 3e-6


@pytest.mark.parametrize("tokens", [1, 4])
def test_extreme_steps_stay_finite(tokens):
    net = new_net(2, 1, 16, 32)
    inputs = Inputs.random(net, tokens)
    inputs.dt[:] = [[300, -300]]
    assert np.isfinite(Layer(net).run(inputs, [tokens])).all()
    assert np.isfinite(net.state).all()


@pytest.mark.parametrize("tokens", [1, 3])
def test_outputs_for_quantized_weights(tokens):
    """Their rows are quantized, and what that leaves of them is, too."""
    net = new_net(2, 1, 32, 32)
    inputs, w = Inputs.random(net, tokens), random_rows(np.random.default_rng(2), "Q8_0", 48, net.columns)
    expected = twin_of(net, inputs)[0] @ w.format.dequantize(w.data).T
    layer = Layer(net)
    layer.plans[tokens] = plan, _, out = layer.plan(tokens)
    projected = Activation(tokens, 48)
    add_matmul(plan, out, w, projected)
    layer.run(inputs, [tokens])
    assert error(projected.values, expected) < 2e-4


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_guesses_leave_no_trace(shape, threads):
    """Steps of four tokens of which one to four stay: the bits of a step for each, and a state that can catch up."""
    net, inputs = new_net(*shape, most_tokens=4), Inputs.random(new_net(*shape), 24)
    one = Layer(new_net(*shape))
    expected = one.run(inputs, [1] * 21)
    layer = Layer(net, threads)
    plan, given, out = layer.plan(4, stepwise=True)
    behind, found = 0, []
    for position, stay in zip([0, 4, 5, 7, 11, 12, 15, 17], [4, 1, 2, 4, 1, 3, 2, 4], strict=True):
        for activation, values in zip(given, inputs.parts(), strict=True):
            activation.values[:] = values[position : position + 4]
            activation.values[stay:] *= -3  # guesses that do not come true
        with running(plan) as run:
            run(4, position, behind)
        found.append(out.values[:stay].copy())
        behind = stay - 1
    assert np.array_equal(np.vstack(found), expected)
    caught = new_plan(1, threads)
    catch_up(caught, net)
    with running(caught) as run:
        run(1, 21, behind)
    assert np.array_equal(net.state, one.net.state)
    rows = np.arange(18, 21)  # those that the next token reads
    assert np.array_equal(net.conv_state[rows % 7], one.net.conv_state[rows % 4])


def test_shapes_are_checked():
    net = new_net(4, 2, 16, 16)
    for wrong in ({"groups": 3}, {"width": 24}, {"heads": 2}, {"norm": net.norm[:16]}, {"conv_bias": net.d}):
        with pytest.raises(ValueError, match=r"heads|groups|channels"):
            replace(net, **wrong)
    with pytest.raises(ValueError, match="groups of 16 columns"):
        new_net(1, 1, 16, 16)
    with pytest.raises(ValueError, match="deferred"):
        replace(net, deferred=aligned((3, 4, 16), np.float32), conv_state=aligned((7, net.channels), np.float32))
    with pytest.raises(ValueError, match="2 tokens a step"):
        Layer(net).plan(2, stepwise=True)
