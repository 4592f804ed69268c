"""Options of heads: interleaved RoPE, sliding windows, attention sinks, soft-capped scores, gates, norms, widths."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from kernel_helpers import new_plan, replay, running

from qcli.doctor.twins import attention as twin
from qcli.doctor.twins import rope as rope_twin
from qcli.doctor.twins.kv_cache import rows
from qcli.doctor.twins.norm import rms_norm
from quant.kernels.attention import Heads, attention
from quant.kernels.kv_cache import row_shape
from quant.kernels.rope import Rope, cos_sin, frequencies
from quant.plan import Activation, aligned

BASE = 10000.0


@dataclass
class Layer:
    """Random queries, keys and values for some tokens, and caches; options as Heads takes them."""

    queries: int = 4
    keys: int = 2
    width: int = 32
    values: int = 32
    tokens: int = 150
    kv: str = "f16"
    interleaved: bool = False
    rotary: int = 32
    apart: bool = False  # whether gates come by themselves
    cached: int = 256  # rows of the caches
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        rng = np.random.default_rng(7)
        gates = 2 if self.options.get("gated") else 1
        self.q, self.k, self.v = (
            rng.standard_normal((self.tokens, columns)).astype(np.float32)
            for columns in (gates * self.queries * self.width, self.keys * self.width, self.keys * self.values)
        )
        self.gates = rng.standard_normal((self.tokens, self.queries * self.values)).astype(np.float32)
        self.given = (self.q, self.k, self.v, self.gates)[: 4 if self.apart else 3]
        caches = []
        for width, first in ((self.width, self.options.get("first", 0)), (self.values, 0)):
            row, kind = row_shape(self.kv, width, first)
            caches.append(aligned((self.keys, self.cached, row), kind))
        k_cache, v_cache = caches
        shape = self.queries, self.keys, self.width, self.values
        self.heads = Heads(*shape, k_cache, v_cache, eps=1e-6, **self.options)
        self.rope = Rope(frequencies(self.rotary, BASE), interleaved=self.interleaved) if self.rotary else None

    def run(self, sizes, threads=1):
        """Feed the tokens in pieces of these sizes; [tokens, columns]."""
        results, position = [], 0
        with ExitStack() as teams:
            pieces = {count: self._piece(teams, count, threads) for count in set(sizes)}
            for count in sizes:
                inputs, out, run = pieces[count]
                for given, values in zip(inputs, self.given, strict=True):
                    given.values[:] = values[position : position + count]
                run(count, position)
                results.append(out.values.copy())
                position += count
        return np.vstack(results)

    def _piece(self, teams, count, threads):
        """A plan for `count` tokens: its inputs, its output, and what replays it."""
        plan, out = new_plan(count, threads), Activation(count, self.queries * self.values)
        inputs = [Activation(count, values.shape[1]) for values in self.given]
        _ = out.values, *(given.values for given in inputs)
        attention(plan, *inputs[:3], self.rope, self.heads, out, None, *inputs[3:])
        return inputs, out, teams.enter_context(running(plan))

    def expected(self, count):
        """By the twin, from keys and values as the caches hold them."""
        angles = rope_twin.angles(np.arange(count), self.rotary, BASE) if self.rotary else None
        norms, options = self.options.get("norms"), self.options
        q = self.q[:count].reshape(count, self.queries, -1)
        gates = q[..., self.width :] if options.get("gated") else None
        gates = self.gates[:count].reshape(count, self.queries, -1) if self.apart else gates
        how = norms and norms[0], 1e-6, angles, self.interleaved, options.get("normed_last", False)
        q = twin.heads(q[..., : self.width], *how)
        caches = rows(self.heads.k_cache, self.width, self.heads.first), rows(self.heads.v_cache, self.values)
        taken = {key: options[key] for key in ("sinks", "window", "softcap", "scale") if key in options}
        return twin.attend(q, *caches, gates, 0, **taken)

    def check(self, *shapes):
        """Against the twin, whose rows do not depend on how many follow: it computes the most that any shape has."""
        by_shape = [self.run(sizes) for sizes in shapes]
        most = self.expected(max(map(len, by_shape)))
        for sizes, found in zip(shapes, by_shape, strict=True):
            expected = most[: len(found)]
            assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
            assert np.array_equal(self.run(sizes, threads=3), found)


BOTH_WAYS = [1] * 70, [150], [64, 1, 70, 15]


def uniform(*shape, low=0.5, high=2.0):
    return np.random.default_rng(3).uniform(low, high, shape).astype(np.float32)


OPTIONS = {
    "plain": {},
    "gated": {"gated": True},
    "scale": {"scale": 0.1},
    "softcap": {"softcap": 2.0},
    "sinks": {"sinks": uniform(4, low=-1, high=3)},
    "norms of heads": {"norms": (uniform(32), uniform(32))},
    "norms of rows": {"norms": (uniform(128), uniform(64))},
    "norms after rotation": {"norms": (uniform(32), uniform(32)), "normed_last": True},
    "all": {
        "gated": True, "scale": 0.3, "softcap": 3.0, "sinks": uniform(4), "norms": (uniform(32), uniform(32)), "window": 70,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_both_ways_against_the_softmax(name):
    Layer(options=OPTIONS[name]).check(*BOTH_WAYS)


@pytest.mark.parametrize("window", [1, 5, 16, 63, 64, 65, 100, 149, 150, 1000])
def test_windows(window):
    Layer(options={"window": window}).check(*BOTH_WAYS)
    Layer(options={"window": window, "sinks": uniform(4)}).check([150], [1] * 80)


@pytest.mark.parametrize(
    ("window", "cached"), [(1, 64), (50, 64), (56, 64), (64, 128), (65, 128), (100, 128), (100, 192)]
)
@pytest.mark.parametrize("kv", ["f16", "q8_0", "i16", "f32"])
def test_rings_give_the_bits_of_caches_that_keep_all(window, cached, kv):
    """A piece has as many tokens as rows are there beside the window, and one more, the first, whose window has itself."""
    options, most = {"window": window, "sinks": uniform(4)}, cached - window + 1
    for sizes in ([1] * 150, [most] * (150 // most), [1, most, 3, 1, 1]):
        found = Layer(kv=kv, cached=cached, options=options).run(sizes)
        assert np.array_equal(found, Layer(kv=kv, options=options).run(sizes))


def test_a_block_of_a_ring_may_hold_both_ends_of_a_window():
    """Values of two blocks are in the same rows: position 70's window of 50 begins at 21."""
    layer = Layer(queries=2, keys=1, cached=64, options={"window": 50})
    layer.q[:] = 0
    layer.v[:] = np.arange(150)[:, None]
    for sizes in ([1] * 71, [15, 14, 14, 14, 14]):
        np.testing.assert_allclose(layer.run(sizes)[70], np.arange(21, 71).mean(), rtol=1e-3)


@pytest.mark.parametrize("rotary", [0, 8, 32])
@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_dimensions(rotary, interleaved):
    Layer(rotary=rotary, interleaved=interleaved).check(*BOTH_WAYS)


@pytest.mark.parametrize(("width", "values"), [(80, 80), (96, 64), (48, 112), (192, 128), (576, 512)])
@pytest.mark.parametrize(("queries", "keys"), [(2, 2), (6, 1), (9, 3)])
def test_widths(width, values, queries, keys):
    values += values * queries % 32  # outputs come in blocks of 32
    Layer(queries, keys, width, values, rotary=16).check([70], [3, 1, 1, 40])


@pytest.mark.parametrize("kv", ["q8_0", "f32"])
@pytest.mark.parametrize("name", ["plain", "sinks", "all"])
def test_caches_of_half_and_twice_the_size(name, kv):
    Layer(kv=kv, options=OPTIONS[name]).check(*BOTH_WAYS)
    Layer(kv=kv, width=64, values=96, options={"window": 20}).check(*BOTH_WAYS)


def test_keys_normed_last_are_in_the_cache():
    """Keys of all shapes are stored as the twin has them."""
    norms = uniform(32), uniform(32)
    layer = Layer(kv="f32", tokens=9, options={"norms": norms, "normed_last": True})
    layer.run([9])
    keys = layer.k.reshape(9, 2, 32)
    expected = twin.heads(keys, norms[1], 1e-6, rope_twin.angles(np.arange(9), 32, BASE), normed_last=True)
    np.testing.assert_allclose(layer.heads.k_cache[:, :9], expected.swapaxes(0, 1), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("queries", "width", "values"), [(4, 32, 32), (3, 48, 96)])
def test_gates_apart(queries, width, values):
    Layer(queries, 1, width, values, apart=True).check(*BOTH_WAYS)
    with pytest.raises(ValueError, match="gates"):
        Layer(apart=True, options={"gated": True}).run([3])


def test_rows_that_are_normed_together_are_normed_before():
    with pytest.raises(ValueError, match="norms of"):
        Layer(options={"norms": (uniform(128), uniform(64)), "normed_last": True})


@pytest.mark.parametrize("name", ["plain", "sinks", "all"])
def test_a_cache_of_whole_numbers(name):
    layer = Layer(kv="i16", options=OPTIONS[name])
    layer.check(*BOTH_WAYS)
    Layer(kv="i16", width=48, values=112, options={"window": 20}).check(*BOTH_WAYS)
    values = layer.v.reshape(layer.tokens, layer.keys, -1).swapaxes(0, 1)
    kept = rows(layer.heads.v_cache, layer.values)[:, : layer.tokens]
    assert (np.abs(kept - values).max(-1) <= np.abs(values).max(-1) / 65534 * 1.01).all()


@pytest.mark.parametrize("kv", ["i16", "f16", "q8_0", "f32"])
@pytest.mark.parametrize(("queries", "width", "first"), [(4, 32, 16), (3, 96, 32), (9, 192, 64)])
def test_first_columns_of_keys_may_have_a_scale_of_their_own(queries, width, first, kv):
    layer = Layer(queries, 1, width, 32, kv=kv, rotary=first, options={"first": first, "scale": 1e-4})
    layer.k[:, :first] *= 1000
    layer.check(*BOTH_WAYS)


def test_columns_with_a_scale_of_their_own_do_not_coarsen_the_others():
    layer = Layer(2, 1, 48, 32, kv="i16", rotary=0, options={"first": 16, "scale": 1e-3})
    layer.k[:, :16] *= 1000
    layer.run([layer.tokens])
    kept, off = rows(layer.heads.k_cache, 48, 16)[0, : layer.tokens], np.abs(layer.k)
    for part in (slice(16), slice(16, None)):
        assert (np.abs(kept - layer.k)[:, part].max(-1) <= off[:, part].max(-1) / 65534 * 1.01).all()
    with pytest.raises(ValueError, match="first"):
        replace(layer.heads, first=8)
    with pytest.raises(ValueError, match="caches"):
        replace(layer.heads, first=0)


def test_values_are_normed():
    norm = uniform(32)
    layer = Layer(kv="i16", options={"v_norm": norm})
    layer.check([70], [1] * 70)
    values = rms_norm(layer.v.reshape(layer.tokens, layer.keys, -1), norm, 1e-6).swapaxes(0, 1)
    np.testing.assert_allclose(rows(layer.heads.v_cache, 32)[:, :70], values[:, :70], atol=1e-4)


@pytest.mark.parametrize("count", [1, 70])
def test_a_layer_may_attend_to_what_another_has_cached(count):
    """With queries alone it finds the same as the other, and leaves the caches as they are."""
    layer = Layer(options={"norms": (uniform(32), uniform(32))})
    expected = layer.run([count])
    before = layer.heads.k_cache.copy()
    plan, q, out = new_plan(count), Activation(count, layer.q.shape[1]), Activation(count, expected.shape[1])
    _ = q.values, out.values
    attention(plan, q, None, None, layer.rope, layer.heads, out)
    q.values[:] = layer.q[:count]
    replay(plan)
    assert np.array_equal(out.values, expected)
    assert np.array_equal(layer.heads.k_cache, before)


def test_a_window_of_one_gives_the_token_its_own_value():
    layer = Layer(queries=2, keys=1, tokens=5, options={"window": 1})
    layer.v[:] = np.arange(5)[:, None]
    for sizes in ([5], [1] * 5):
        assert layer.run(sizes).tolist() == [[i] * 64 for i in range(5)]


def test_a_sink_takes_half_of_what_one_key_of_the_same_score_gets():
    layer = Layer(queries=2, keys=1, tokens=3, options={"sinks": np.zeros(2, np.float32)})
    layer.q[:], layer.v[:] = 0, 6
    for sizes in ([3], [1] * 3):
        np.testing.assert_allclose(layer.run(sizes)[:, 0], [3, 4, 4.5], rtol=1e-6)


def test_a_strong_sink_takes_all():
    layer = Layer(queries=2, keys=1, tokens=3, options={"sinks": np.full(2, 80, np.float32)})
    for sizes in ([3], [1] * 3):
        assert np.abs(layer.run(sizes)).max() < 1e-25


def test_capped_scores_are_never_far_apart():
    """Scores of ±1000, capped by 1: the softmax of two keys is that of 1 and -1."""
    layer = Layer(queries=2, keys=1, width=16, values=16, tokens=2, rotary=0, options={"softcap": 1.0, "scale": 1.0})
    layer.q[:], layer.k[:] = 0, 0
    layer.q[1, [0, 16]], layer.k[:, 0] = 1000, [1, -1]
    layer.v[:] = np.array([1, 0])[:, None]
    for sizes in ([2], [1, 1]):
        np.testing.assert_allclose(layer.run(sizes)[1], 1 / (1 + np.exp(-2)), rtol=1e-6)


def test_interleaved_pairs_rotate_a_quarter():
    """Position 1 at frequency pi / 2: (1, 0, 0, 1) -> (0, 1, -1, 0)."""
    layer = Layer(queries=2, keys=1, width=16, values=16, tokens=2, rotary=4, interleaved=True)
    assert layer.rope
    layer.rope = replace(layer.rope, frequencies=np.full(2, np.pi / 2, np.float32))
    layer.k[:] = 0
    layer.k[:, [0, 3]] = 1
    layer.run([2])
    np.testing.assert_allclose(layer.heads.k_cache[0, 1, :5], [0, 1, -1, 0, 0], atol=1e-6)


def test_rotated_values_are_multiplied():
    plan = new_plan(3)
    found = cos_sin(plan, Rope(frequencies(8, BASE), attention_factor=1.5))
    assert cos_sin(plan, Rope(frequencies(8, BASE))) is not found
    replay(plan, position=2)
    np.testing.assert_allclose(np.hypot(found[:, 0], found[:, 1]), 1.5, rtol=1e-6)


def test_cos_and_sin_are_computed_once():
    plan, rope = new_plan(3), Rope(frequencies(8, BASE))
    assert cos_sin(plan, rope) is cos_sin(plan, rope)
    assert len(plan.parts) == 1
