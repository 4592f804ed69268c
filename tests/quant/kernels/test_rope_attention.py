"""Rotary positions, and attention one token at a time and many at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from kernel_helpers import float_matrix, new_plan, random_rows, replay, running, source

from qcli.doctor.twins import attention as twin
from qcli.doctor.twins import rope as rope_twin
from qcli.doctor.twins.kv_cache import rows, stored
from qcli.doctor.twins.matmul import matmul as matmul_twin
from qcli.doctor.twins.matmul import size
from quant.kernels import rope
from quant.kernels.attention import Heads, attention
from quant.kernels.kv_cache import row_shape
from quant.kernels.matmul import add_matmul
from quant.kernels.rope import Rope
from quant.plan import Activation, aligned

EPS, BASE = 1e-6, 10000.0


def cos_sin_of(tokens, dimensions, position=0, base=BASE):
    plan = new_plan(tokens)
    found = rope.cos_sin(plan, Rope(rope.frequencies(dimensions, base)))
    replay(plan, position=position)
    return found


def test_angles_at_the_start_are_zero():
    found = cos_sin_of(1, 8)
    assert found.shape == (1, 2, 4)
    assert found[0].tolist() == [[1] * 4, [0] * 4]


def test_the_first_pair_rotates_by_its_position():
    found = cos_sin_of(4, 2, position=5)
    np.testing.assert_allclose(found[:, 0, 0], np.cos([5, 6, 7, 8]), rtol=1e-6)
    np.testing.assert_allclose(found[:, 1, 0], np.sin([5, 6, 7, 8]), rtol=1e-6)


@pytest.mark.parametrize(("dimensions", "base"), [(8, 1e4), (64, 1e7), (128, 5e6)])
def test_angles(dimensions, base):
    """float32 angles, as checkpoints were trained: good to position * 2**-24."""
    for position in (0, 1000, 100_000):
        expected = rope_twin.angles(np.arange(position, position + 3), dimensions, base)
        found = cos_sin_of(3, dimensions, position, base)
        np.testing.assert_allclose(found[:, 0], np.cos(expected), atol=1e-6 + position * 2e-7)
        np.testing.assert_allclose(found[:, 1], np.sin(expected), atol=1e-6 + position * 2e-7)


@dataclass
class Layer:
    """An attention layer with random norms, and inputs for so many tokens."""

    queries: int
    keys: int
    width: int
    tokens: int
    rotary: int = 8
    context: int = 256
    kv: str = "f16"
    seed: int = 0

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        self.norms = tuple(rng.uniform(0.5, 2, self.width).astype(np.float32) for _ in range(2))
        self.q_gate = rng.standard_normal((self.tokens, 2 * self.queries * self.width)).astype(np.float32)
        self.k = rng.standard_normal((self.tokens, self.keys * self.width)).astype(np.float32)
        self.v = rng.standard_normal((self.tokens, self.keys * self.width)).astype(np.float32)
        row, kind = row_shape(self.kv, self.width)
        caches = (aligned((self.keys, self.context, row), kind) for _ in range(2))
        self.heads = Heads(self.queries, self.keys, self.width, self.width, *caches)

    def run(self, sizes, most=None, position=0, threads=1):
        """Feed the tokens in pieces of these sizes, each by a plan for so many, or `most`; [tokens, columns]."""
        columns, results, plans = self.queries * self.width, [], {}
        for count in sizes:
            if count not in plans:
                plans[count] = self._plan(most or count, threads)
            plan, inputs, out = plans[count]
            first, last = position, position + count
            for given, values in zip(inputs, (self.q_gate, self.k, self.v), strict=True):
                given.values[:count] = values[first:last]
            replay(plan, count, first)
            results.append(out.values[:count].copy())
            position = last
        return np.vstack(results).reshape(-1, columns)

    def _plan(self, tokens, threads):
        plan, out = new_plan(tokens, threads), Activation(tokens, self.queries * self.width)
        inputs = [Activation(tokens, values.shape[1]) for values in (self.q_gate, self.k, self.v)]
        _ = out.values
        heads = replace(self.heads, norms=self.norms, eps=EPS, gated=True)
        attention(plan, *inputs, Rope(rope.frequencies(self.rotary, BASE)), heads, out)
        return plan, inputs, out

    def expected(self, position=0):
        """By the twin, from the keys and values as the cache holds them."""
        q, gates = np.moveaxis(self.q_gate.reshape(self.tokens, self.queries, 2, self.width), 2, 0)
        queries = twin.heads(q, self.norms[0], EPS, self._angles())
        k_cache, v_cache = (rows(cache, self.width) for cache in (self.heads.k_cache, self.heads.v_cache))
        return twin.attend(queries[position:], k_cache, v_cache, gates[position:], position)

    def expected_keys(self):
        k = self.k.reshape(self.tokens, self.keys, self.width)
        return twin.heads(k, self.norms[1], EPS, self._angles()).swapaxes(0, 1)

    def _angles(self):
        return rope_twin.angles(np.arange(self.tokens), self.rotary, BASE)


def assert_near(found, expected):
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


def test_one_token_sees_only_itself():
    """Its softmax is 1: v times sigmoid of the gate, whatever q and k are."""
    layer = Layer(2, 1, 16, tokens=1)
    layer.q_gate.reshape(2, 2, 16)[0, 1] = 0
    layer.q_gate.reshape(2, 2, 16)[1, 1] = 100
    layer.v[:] = np.arange(16)
    (out,) = layer.run([1])
    assert out[:16].tolist() == [i / 2 for i in range(16)]
    assert out[16:].tolist() == list(range(16))


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [4]])
def test_equal_keys_give_the_mean_of_the_values(sizes):
    layer = Layer(1, 1, 32, tokens=4, rotary=2)
    layer.q_gate[:, 32:] = 100
    layer.q_gate[:, [0, 1]] = 0  # the values that are rotated
    layer.k[:] = layer.k[0]
    layer.k[:, [0, 1]] = 0
    layer.v[:] = np.array([8, 4, 0, 20])[:, None]
    np.testing.assert_allclose(layer.run(sizes)[:, 0], [8, 6, 4, 8], rtol=1e-6)


@pytest.mark.parametrize("sizes", [[1, 1, 1], [3]])
def test_a_strong_key_takes_all(sizes):
    layer = Layer(1, 1, 32, tokens=3, rotary=2)
    layer.norms = (np.full(32, 30, np.float32), np.full(32, 30, np.float32))
    layer.q_gate[:] = np.repeat([0, 100], 32)
    layer.k[:] = 0
    layer.k[[0, 1, 2], [4, 5, 6]] = 1  # three keys at right angles, and a query along the second
    layer.q_gate[:, 5] = 1
    layer.v[:] = np.array([1, 2, 3])[:, None]
    np.testing.assert_allclose(layer.run(sizes)[:, 0], [1, 2, 2], rtol=1e-6)


@pytest.mark.parametrize("sizes", [[1, 1], [2]])
def test_cached_keys_are_normed_and_rotated(sizes):
    layer = Layer(2, 1, 16, tokens=2, rotary=2)
    layer.k[:] = 0
    layer.k[:, 0] = -7
    layer.norms[1][:] = 1
    layer.run(sizes)
    # the norm makes 4 of the only lane, and value 0 is rotated with value 1
    keys = layer.heads.k_cache[0, :2, :3].astype(np.float32)
    np.testing.assert_allclose(keys, [[-4, 0, 0], [-4 * np.cos(1), -4 * np.sin(1), 0]], rtol=1e-3)
    assert np.array_equal(rows(layer.heads.v_cache, 16)[0, :2], stored(layer.v, False))


@pytest.mark.parametrize(("queries", "keys"), [(2, 2), (4, 2), (8, 1), (6, 2)])
@pytest.mark.parametrize("width", [16, 32, 64])
def test_both_ways_against_the_softmax(queries, keys, width):
    layer = Layer(queries, keys, width, tokens=70, rotary=width // 2)
    steps = layer.run([1] * 70)
    assert_near(steps, layer.expected())
    np.testing.assert_allclose(layer.heads.k_cache[:, :70], layer.expected_keys(), rtol=6e-4, atol=1e-5)
    assert_near(layer.run([70]), layer.expected())


@pytest.mark.parametrize(("queries", "keys", "width"), [(2, 2, 32), (8, 1, 64), (6, 2, 96)])
@pytest.mark.parametrize("sizes", [[1] * 70, [70], [65, 1, 4]])
def test_a_cache_of_half_the_size(queries, keys, width, sizes):
    layer = Layer(queries, keys, width, tokens=70, kv="q8_0")
    found = layer.run(sizes)
    assert_near(found, layer.expected())
    assert np.array_equal(
        rows(layer.heads.v_cache, width)[:, :70], stored(layer.v, True).reshape(70, keys, -1).swapaxes(0, 1)
    )
    k_error = rows(layer.heads.k_cache, width)[:, :70] - layer.expected_keys()
    assert np.abs(k_error).max() <= np.abs(layer.expected_keys()).max() / 127 / 2 * 1.01
    assert layer.heads.k_cache.nbytes < 0.6 * Layer(queries, keys, width, tokens=70).heads.k_cache.nbytes
    full = Layer(queries, keys, width, tokens=70).run(sizes)
    assert np.linalg.norm(found - full) < 0.02 * np.linalg.norm(full)


def test_a_cache_of_half_the_size_needs_whole_blocks():
    with pytest.raises(ValueError, match="multiple of 32, not 48"):
        Layer(2, 1, 48, tokens=1, kv="q8_0")


@pytest.mark.parametrize("sizes", [[64, 65], [65, 64], [1, 128], [63, 1, 2, 63], [7] * 18 + [3], [128, 1]])
def test_steps_and_chunks_mix(sizes):
    whole = Layer(4, 2, 32, tokens=129)
    mixed = Layer(4, 2, 32, tokens=129)
    assert_near(mixed.run(sizes), whole.run([129]))
    assert np.array_equal(mixed.heads.k_cache, whole.heads.k_cache)
    assert np.array_equal(mixed.heads.v_cache, whole.heads.v_cache)


@pytest.mark.parametrize("length", [63, 64, 65, 128, 129, 200])
def test_a_token_after_so_many_others(length):
    layer = Layer(8, 2, 16, tokens=length + 1)
    layer.run([length])
    assert_near(layer.run([1], position=length), layer.expected(length))


@pytest.mark.parametrize("sizes", [[1] * 66, [66]])
def test_scores_far_apart_do_not_overflow(sizes):
    layer = Layer(2, 1, 16, tokens=66)
    layer.norms = (np.full(16, 100, np.float32), np.full(16, 50, np.float32))
    found = layer.run(sizes)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - layer.expected()) <= 1e-4 * np.linalg.norm(layer.expected())


@pytest.mark.parametrize("sizes", [[1] * 20, [20]])
def test_the_number_of_threads_changes_no_bit(sizes):
    one = Layer(4, 2, 32, tokens=20).run(sizes)
    for threads in (2, 3, 5):
        assert np.array_equal(Layer(4, 2, 32, tokens=20).run(sizes, threads=threads), one)


def test_a_replay_takes_fewer_tokens_than_its_plan():
    whole = Layer(4, 2, 32, tokens=40)
    assert_near(Layer(4, 2, 32, tokens=40).run([17, 23], most=30), whole.run([40]))


def test_the_last_position_of_the_context():
    layer = Layer(2, 1, 16, tokens=100, context=100)
    layer.run([99])
    assert_near(layer.run([1], position=99), layer.expected(99))


@pytest.mark.parametrize("tokens", [1, 3])
def test_readers_of_all_layouts_are_served(tokens):
    layer = Layer(8, 2, 32, tokens)
    rng, plan, out = np.random.default_rng(1), new_plan(tokens, threads=2), Activation(tokens, 256)
    inputs = [source(plan, values) for values in (layer.q_gate, layer.k, layer.v)]
    heads = replace(layer.heads, norms=layer.norms, eps=EPS, gated=True)
    attention(plan, *inputs, Rope(rope.frequencies(8, BASE)), heads, out)
    matrices = [random_rows(rng, "Q4_K", 16, 256), float_matrix("F32", rng.standard_normal((16, 256)))]
    results = [Activation(tokens, 16) for _ in matrices]
    for w, y in zip(matrices, results, strict=True):
        add_matmul(plan, out, w, y)
    with running(plan) as run:
        run()
    for w, y, error in zip(matrices, results, (1e-4, 1e-6), strict=True):
        true = out.values @ w.format.dequantize(w.data).T
        assert np.abs((y.values - true) / size(out.values, w)).max() < error
        assert np.linalg.norm(y.values - true) <= np.linalg.norm(matmul_twin(out.values, w) - true) + 1e-4


def test_shapes_are_checked():
    layer = Layer(4, 2, 32, tokens=2)
    with pytest.raises(ValueError, match="3 query heads"):
        Heads(3, 2, 32, 32, layer.heads.k_cache, layer.heads.v_cache)
    with pytest.raises(ValueError, match="4 query heads"):
        Heads(4, 2, 16, 16, layer.heads.k_cache, layer.heads.v_cache)
    given = Activation(2, 256), Activation(2, 64), Activation(2, 64)
    with pytest.raises(ValueError, match="4 and 2 heads of 32"):
        attention(new_plan(2), *given, None, replace(layer.heads, gated=True), Activation(2, 64))
    with pytest.raises(ValueError, match="17 pairs"):
        attention(
            new_plan(2), *given, Rope(np.ones(17, np.float32)), replace(layer.heads, gated=True), Activation(2, 128)
        )
    for wrong in (
        {"norms": (np.ones(32), np.ones(64))},
        {"norms": (np.ones(128), np.ones(64)), "gated": True},
        {"sinks": np.ones(3)},
        {"value_dim": 48},
        {"value_dim": 24},
    ):
        with pytest.raises(ValueError, match="heads of 32"):
            replace(layer.heads, **wrong)
