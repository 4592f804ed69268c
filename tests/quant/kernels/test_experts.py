"""Routed and shared experts: a token at a time, and many grouped by expert."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from kernel_helpers import float_matrix, new_plan, random_rows, replay, source, stacked

from qcli.doctor.twins import experts as twin
from qcli.doctor.twins.functions import silu
from qcli.doctor.twins.router import choose
from quant.kernels.experts import GatedExperts, LayerExperts, dense_step, experts_step
from quant.kernels.experts_grouped import dense_grouped, experts_grouped
from quant.kernels.gates import GATES, UNGATED
from quant.kernels.router import Routing
from quant.plan import Activation, aligned
from quant.weights import experts_of

N = 256


@dataclass
class Setup:
    """Matrices of a layer: gate, up and down of every expert, and of the shared one if there is one."""

    gate: list
    up: list
    down: list
    shared: tuple | None
    routing: Routing
    activation: str = "silu"
    scale: float = 1.0

    @classmethod
    def random(cls, name, count, width, chosen, shared=True, down=None, seed=0, n=N, biases=False, **options):
        rng = np.random.default_rng(seed)

        def rows(kind, *shape):
            w = random_rows(rng, kind, *shape)
            return replace(w, bias=rng.standard_normal(w.rows).astype(np.float32)) if biases else w

        def three(experts):
            gate, up = ([rows(name, width, n) for _ in range(experts)] for _ in range(2))
            return gate, up, [rows(down or name, n, width) for _ in range(experts)]

        own = tuple(m[0] for m in three(1)) if shared else None
        return cls(*three(count), own, Routing(chosen), **options)

    def layer(self) -> LayerExperts:
        routed = self._experts(self.gate, self.up, self.down)
        shared = self._experts(*([m] for m in self.shared)) if self.shared else None
        return LayerExperts(routed, shared, self.routing, aligned(len(self.gate), np.uint8), self.scale)

    def _experts(self, gate, up, down):
        gate = None if self.activation in UNGATED else stacked(gate)
        return GatedExperts(gate, stacked(up), stacked(down), self.activation)

    def expected(self, h, logits, shared_gate):
        """Every token by the twin, float64 [tokens, n]."""
        parts = self.gate, self.up, self.down
        routed = (
            [np.array([values(m) for m in part]) for part in parts],
            [np.array([bias(m) for m in part]) for part in parts],
        )
        shared = ([values(m) for m in self.shared], [bias(m) for m in self.shared]) if self.shared else None
        kinds = self.gate[0].format.activation, self.down[0].format.activation
        gates = [None] * len(h) if shared_gate is None else shared_gate[:, 0]
        return self.scale * np.array(
            [
                twin.experts(x, row, routed, shared, gate, self.routing, kinds, self.activation)
                for x, row, gate in zip(h, logits, gates, strict=True)
            ]
        )


def bias(matrix):
    return np.zeros(matrix.rows) if matrix.bias is None else matrix.bias.astype(np.float64)


def values(matrix):
    return matrix.format.dequantize(matrix.data).astype(np.float64)


def run(layer, h, logits, shared_gate=None, threads=1, before=0.0, tokens=None):
    """x after the layer, float32 [tokens, n]: many tokens together, as a prompt is."""
    plan, x = new_plan(len(h), threads), Activation(len(h), layer.routed.down.rows)
    x.values[:] = before
    gate = None if shared_gate is None else source(plan, shared_gate)
    add = experts_step if len(h) == 1 else experts_grouped
    add(plan, layer, source(plan, h), source(plan, logits), gate, x)
    replay(plan, tokens)
    return x.values.copy()


def one_by_one(layer, h, logits, shared_gate=None, **options):
    """The same, a token at a time."""
    gates = [None] * len(h) if shared_gate is None else shared_gate[:, None]
    rows = zip(h[:, None], logits[:, None], gates, strict=True)
    return np.vstack([run(layer, *row, **options) for row in rows])


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def paper_setup(count=4, chosen=2, shared=False):
    """n = width = 32; gate and up give back their input, down of expert e makes it e + 1 times as large, shared: 100."""
    eye = [float_matrix("F32", np.eye(32)) for _ in range(count)]
    down = [float_matrix("F32", (e + 1) * np.eye(32)) for e in range(count)]
    own = eye[0], eye[0], float_matrix("F32", 100 * np.eye(32))
    return Setup(eye, eye, down, own if shared else None, Routing(chosen))


ONE = silu(1.0)  # what an expert's silu(gate) * up makes of an input of 1


@pytest.mark.parametrize("go", [run, one_by_one])
class TestOnPaper:
    def test_equal_logits_of_two(self, go):
        logits = np.array([[-9, 5, -9, 5], [7, 7, 1, 1]], np.float32)
        x = go(paper_setup().layer(), np.ones((2, 32), np.float32), logits)
        np.testing.assert_allclose(x[0], (2 + 4) / 2 * ONE, rtol=1e-6)
        np.testing.assert_allclose(x[1], (1 + 2) / 2 * ONE, rtol=1e-6)

    def test_weights_are_the_softmax_of_the_chosen(self, go):
        logits = np.log(np.array([[3, 1, 0.5, 0.1]] * 2)).astype(np.float32)
        x = go(paper_setup().layer(), np.ones((2, 32), np.float32), logits)
        np.testing.assert_allclose(x, (0.75 * 1 + 0.25 * 2) * ONE, rtol=1e-6)

    def test_ties_go_to_the_lower_index(self, go):
        x = go(paper_setup(chosen=1).layer(), np.ones((2, 32), np.float32), np.zeros((2, 4), np.float32))
        np.testing.assert_allclose(x, 1 * ONE, rtol=1e-6)
        logits = np.array([[0, 1, 1, 1], [1, 0, 1, 1]], np.float32)
        x = go(paper_setup(chosen=2).layer(), np.ones((2, 32), np.float32), logits)
        np.testing.assert_allclose(x[:, 0], [(2 + 3) / 2 * ONE, (1 + 3) / 2 * ONE], rtol=1e-6)

    def test_what_was_there_stays(self, go):
        x = go(paper_setup(chosen=1).layer(), np.ones((2, 32), np.float32), np.zeros((2, 4), np.float32), before=10.0)
        np.testing.assert_allclose(x, 10 + ONE, rtol=1e-6)

    def test_the_scale_multiplies_the_routed_experts_only(self, go):
        setup = paper_setup(chosen=1, shared=True)
        setup.routing = Routing(1, scale=2.5)
        x = go(setup.layer(), np.ones((2, 32), np.float32), np.zeros((2, 4), np.float32))
        np.testing.assert_allclose(x, (2.5 + 100) * ONE, rtol=1e-6)

    def test_the_shared_expert_by_its_gate(self, go):
        gates = np.array([[0], [100]], np.float32)
        layer = paper_setup(chosen=1, shared=True).layer()
        x = go(layer, np.ones((2, 32), np.float32), np.zeros((2, 4), np.float32), gates)
        np.testing.assert_allclose(x[:, 0], [(1 + 50) * ONE, (1 + 100) * ONE], rtol=1e-6)

    def test_all_experts_are_chosen(self, go):
        x = go(paper_setup(chosen=4).layer(), np.ones((2, 32), np.float32), np.zeros((2, 4), np.float32))
        np.testing.assert_allclose(x, (1 + 2 + 3 + 4) / 4 * ONE, rtol=1e-6)

    def test_only_the_chosen_are_marked(self, go):
        layer = paper_setup(count=8).layer()
        logits = np.zeros((2, 8), np.float32)
        logits[0, [2, 7]] = 1
        logits[1, [2, 5]] = 1
        go(layer, np.ones((2, 32), np.float32), logits)
        assert layer.touched.tolist() == [0, 0, 1, 0, 0, 1, 0, 1]

    def test_experts_that_nobody_chose_are_not_read(self, go):
        """Their addresses lead nowhere."""
        layer = paper_setup(count=4).layer()
        for experts in (layer.routed.gate, layer.routed.up, layer.routed.down):
            experts.addresses[[0, 2]] = 0
        logits = np.array([[-9, 5, -9, 5]] * 2, np.float32)
        x = go(layer, np.ones((2, 32), np.float32), logits)
        np.testing.assert_allclose(x, 3 * ONE, rtol=1e-6)


CASES = [
    # format, of down, experts, width, chosen
    ("F32", "F32", 8, 32, 2),
    ("F32", "F32", 5, 48, 3),
    ("BF16", "F16", 4, 64, 4),
    ("Q8_0", "Q8_0", 8, 96, 2),
    ("Q4_0", "Q8_0", 6, 32, 1),
    ("Q4_K", "Q6_K", 4, 256, 2),
]


@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 65])
@pytest.mark.parametrize(("name", "down", "count", "width", "chosen"), CASES)
def test_against_the_twin(name, down, count, width, chosen, tokens):
    setup = Setup.random(name, count, width, chosen, down=down)
    h, logits, gates = normal(1, tokens, N), 2 * normal(2, tokens, count), normal(3, tokens, 1)
    expected = setup.expected(h, logits, gates)
    # a middle value beside a rounding border may fall to the other side: 1/254 of the largest of its 32
    limit = 2e-6 if name in ("F32", "BF16") else 1e-3
    for found in (run(setup.layer(), h, logits, gates), one_by_one(setup.layer(), h, logits, gates)):
        assert np.linalg.norm(found - expected) <= limit * np.linalg.norm(expected)


@pytest.mark.parametrize("tokens", [1, 2, 9, 40])
@pytest.mark.parametrize("activation", GATES)
@pytest.mark.parametrize(("name", "width"), [("F32", 48), ("Q8_0", 96)])
def test_biases_and_what_stands_between_the_matrices(name, width, activation, tokens):
    setup = Setup.random(name, 5, width, 2, biases=True, activation=activation, scale=0.5)
    h, logits, gates = normal(1, tokens, N), 2 * normal(2, tokens, 5), normal(3, tokens, 1)
    expected = setup.expected(h, logits, gates)
    for threads in (1, 3):
        for go in (run, one_by_one):
            found = go(setup.layer(), h, logits, gates, threads=threads)
            assert np.linalg.norm(found - expected) <= (2e-6 if name == "F32" else 1e-3) * np.linalg.norm(expected)


@pytest.mark.parametrize("tokens", [1, 2, 9, 40])
@pytest.mark.parametrize("activation", ["gelu", "relu2"])
@pytest.mark.parametrize(("name", "width"), [("F32", 48), ("Q8_0", 96), ("Q4_K", 256)])
def test_a_dense_layer_is_an_expert_that_every_token_takes(name, width, activation, tokens):
    setup = Setup.random(name, 1, width, 1, shared=False, biases=True, activation=activation, scale=0.5)
    h, before = normal(4, tokens, N), normal(5, tokens, N)
    expected = setup.expected(h, np.zeros((tokens, 1)), None) + before
    dense = dense_step if tokens == 1 else dense_grouped
    for threads in (1, 3):
        plan, x = new_plan(tokens, threads), Activation(tokens, N)
        x.values[:] = before
        dense(plan, setup.layer().routed, source(plan, h), x, scale=0.5)
        replay(plan)
        assert np.linalg.norm(x.values - expected) <= (2e-6 if name == "F32" else 1e-3) * np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["F32", "Q8_0"])
@pytest.mark.parametrize("shared", [True, False])
def test_one_token_and_many_agree(name, shared):
    setup = Setup.random(name, 8, 64, 3, shared)
    h, logits = normal(4, 20, N), normal(5, 20, 8)
    gates = normal(6, 20, 1) if shared else None
    layer, other = setup.layer(), setup.layer()
    a, b = run(layer, h, logits, gates), one_by_one(other, h, logits, gates)
    assert np.linalg.norm(a - b) <= (1e-6 if name == "F32" else 1e-3) * np.linalg.norm(a)
    assert np.array_equal(layer.touched, other.touched)


def test_experts_with_no_token_one_and_all():
    setup = Setup.random("Q8_0", 6, 32, 2)
    h, logits = normal(7, 33, N), np.zeros((33, 6), np.float32)
    logits[:, 4] = 9  # everybody's
    logits[:, 0] = 5
    logits[11, 2] = 7  # one token's; the others take 0; 1, 3 and 5 have none
    layer = setup.layer()
    found, expected = run(layer, h, logits), setup.expected(h, logits, None)
    assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)
    assert layer.touched.tolist() == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("count", [16, 512])
def test_the_choice_of_many(count):
    """n = 32 by an expert that multiplies by its number: the sum tells who was chosen."""
    rng, k = np.random.default_rng(8), 10
    eye = float_matrix("F32", np.eye(32))
    down = [float_matrix("F32", e * np.eye(32)) for e in range(count)]
    layer = Setup([eye] * count, [eye] * count, down, None, Routing(k)).layer()
    logits = rng.integers(-20, 20, (40, count)).astype(np.float32) / 4
    found = run(layer, np.ones((40, 32), np.float32), logits)
    for row, x in zip(logits, found, strict=True):
        chosen, weights = choose(row, Routing(k))
        np.testing.assert_allclose(x, (chosen * weights).sum() * ONE, rtol=3e-6)


@pytest.mark.parametrize("tokens", [1, 9])
@pytest.mark.parametrize(("name", "width"), [("F32", 48), ("Q8_0", 96)])
def test_the_number_of_threads_changes_no_bit(name, width, tokens):
    setup = Setup.random(name, 6, width, 3)
    h, logits, gates = normal(9, tokens, N), normal(10, tokens, 6), normal(11, tokens, 1)
    one = run(setup.layer(), h, logits, gates)
    for threads in (2, 3, 5):
        assert np.array_equal(run(setup.layer(), h, logits, gates, threads), one)


@pytest.mark.parametrize("n", [48, 80])
def test_outputs_that_fill_no_whole_tile(n):
    setup = Setup.random("F32", 4, 32, 2, n=n)
    h, logits, gates = normal(12, 19, n), normal(13, 19, 4), normal(14, 19, 1)
    expected = setup.expected(h, logits, gates)
    assert np.linalg.norm(run(setup.layer(), h, logits, gates) - expected) <= 2e-6 * np.linalg.norm(expected)


def test_a_replay_takes_fewer_tokens_than_its_plan():
    setup = Setup.random("F32", 4, 32, 2)
    h, logits, gates = normal(15, 8, N), normal(16, 8, 4), normal(17, 8, 1)
    whole, part = run(setup.layer(), h, logits, gates), run(setup.layer(), h, logits, gates, tokens=3)
    near = {"rtol": 1e-5, "atol": 1e-6 * np.abs(whole).max()}
    np.testing.assert_allclose(part[:3], whole[:3], **near)  # an expert with few tokens takes them row by row
    assert not part[3:].any()


def test_experts_are_found_in_a_stacked_tensor():
    w = float_matrix("F32", np.repeat(np.arange(12), 16).reshape(12, 16))  # 3 experts: 2 rows of gate, 2 of up
    gate, up = experts_of(w, 3, 0, 2), experts_of(w, 3, 2, 2)
    assert (gate.count, gate.rows, gate.columns, gate.bytes) == (3, 2, 16, 128)
    assert (gate.addresses - w.address).tolist() == [0, 256, 512]
    assert (up.addresses - gate.addresses).tolist() == [128] * 3
    with pytest.raises(ValueError, match="12 rows are not 5 experts"):
        experts_of(w, 5)
    with pytest.raises(ValueError, match="3 experts with rows 3 to 5"):
        experts_of(w, 3, 3, 2)


@pytest.mark.parametrize(("activation", "matrices"), [("silu", 3), ("relu2", 2)])
def test_bytes_that_a_token_reads(activation, matrices):
    layer = Setup.random("Q8_0", 6, 32, 2, activation=activation).layer()
    assert layer.bytes_per_token == (2 + 1) * matrices * 32 * 256 // 32 * 34


def test_shapes_are_checked():
    setup = Setup.random("F32", 3, 32, 2)
    with pytest.raises(ValueError, match="4 of 3 experts"):
        replace(setup, routing=Routing(4)).layer()
    with pytest.raises(ValueError, match="0 of 3 experts"):
        replace(setup, routing=Routing(0)).layer()
    with pytest.raises(ValueError, match="do not fit"):
        replace(setup, up=setup.up[:2]).layer()
    routed = setup.layer().routed
    narrow = replace(routed.gate, rows=16)
    with pytest.raises(ValueError, match="do not fit"):
        GatedExperts(narrow, narrow, routed.down)
    with pytest.raises(ValueError, match="alone"):
        GatedExperts(replace(routed.gate, bias=np.zeros((3, 32), np.float32)), routed.up, routed.down)
    with pytest.raises(ValueError, match="silu experts without gates"):
        replace(routed, gate=None)
    with pytest.raises(ValueError, match="relu2 experts with gates"):
        replace(routed, activation="relu2")
    with pytest.raises(ValueError, match="3 experts of 32 rows"):
        replace(routed.gate, bias=np.zeros((3, 31), np.float32))
    with pytest.raises(ValueError, match="times 64"):
        run(setup.layer(), np.ones((1, 64), np.float32), np.ones((1, 3), np.float32))
