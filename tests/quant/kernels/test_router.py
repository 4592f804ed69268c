"""The choice of experts, by itself."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, replay, source

from qcli.doctor.twins.router import choose
from quant.kernels.router import Routing, route_rows, routing_scratch_bytes
from quant.plan import aligned


def route(logits, routing, threads=1):
    """The choice of every token: experts int64 [tokens, k], weights float32 [tokens, k]."""
    logits = np.asarray(logits, np.float32)
    tokens, count = logits.shape
    plan, shape = new_plan(tokens, threads), (tokens, routing.experts_per_token)
    experts, weights = aligned(shape, np.int64), aligned(shape, np.float32)
    given = source(plan, logits)
    order = given.read("f32"), given.stride("f32"), routing.table(plan, count), experts, weights, plan.batch
    plan.add(route_rows, *order, *plan.scratch(routing_scratch_bytes(count)))
    replay(plan)
    return experts, weights


def one(logits, routing):
    experts, weights = route([logits], routing)
    return experts[0].tolist(), weights[0].tolist()


def near(*values):
    return pytest.approx(values, rel=1e-6)


LOGS = np.log([5, 3, 1, 1])  # softmax: 0.5, 0.3, 0.1, 0.1


class TestOnPaper:
    def test_softmax_of_the_chosen(self):
        assert one(LOGS, Routing(2)) == ([0, 1], near(5 / 8, 3 / 8))

    def test_softmax_of_all(self):
        assert one(LOGS, Routing(2, normalised=False, scale=2.0)) == ([0, 1], near(1.0, 0.6))

    def test_sigmoids(self):
        logits = [np.log(3), -np.log(3), 0, -50]  # 0.75, 0.25, 0.5, 0
        assert one(logits, Routing(2, "sigmoid", normalised=False)) == ([0, 2], near(0.75, 0.5))
        assert one(logits, Routing(2, "sigmoid", scale=2.5)) == ([0, 2], near(1.5, 1.0))

    def test_a_bias_counts_for_the_choice_alone(self):
        bias = np.array([0, 0, 0.35, 0.25], np.float32)  # 0.5, 0.3, 0.45, 0.35
        assert one(LOGS, Routing(3, normalised=False, bias=bias)) == ([0, 2, 3], near(0.5, 0.1, 0.1))
        assert one(LOGS, Routing(3, bias=bias)) == ([0, 2, 3], near(5 / 7, 1 / 7, 1 / 7))

    def test_experts_have_scales_of_their_own(self):
        scales = np.array([2, 3, 4, 5], np.float32)
        assert one(LOGS, Routing(2, scale=2.0, expert_scales=scales)) == ([0, 1], near(20 / 8, 18 / 8))

    def test_only_the_best_groups_count(self):
        logits = np.log([9, 1, 6, 5, 7, 2, 1, 1])  # pairs: by the largest 9, 6, 7, 1; by the sum 10, 11, 9, 2
        pairs = {"groups": 4, "groups_used": 2, "normalised": False}
        assert one(logits, Routing(3, **pairs)) == ([0, 4, 5], near(9 / 32, 7 / 32, 2 / 32))
        assert one(logits, Routing(3, **pairs, group_best=2)) == ([0, 2, 3], near(9 / 32, 6 / 32, 5 / 32))

    def test_ties_go_to_the_lower_index(self):
        assert one(np.zeros(8), Routing(3))[0] == [0, 1, 2]
        assert one(np.zeros(8), Routing(3, "sigmoid", bias=np.zeros(8, np.float32)))[0] == [0, 1, 2]
        assert one(np.zeros(8), Routing(3, groups=4, groups_used=2))[0] == [0, 1, 2]

    def test_weights_of_nothing_stay_finite(self):
        assert one(np.full(4, -1e30), Routing(2, "sigmoid")) == ([0, 1], [0, 0])
        assert one([-1e30, 1e30, 0, 0], Routing(2, normalised=False)) == ([1, 2], [1, 0])


CASES = [(count, k, scores, norm, biased, groups) for count, k, groups in [
    (4, 2, (1, 1, 1)), (60, 4, (1, 1, 1)), (64, 8, (8, 3, 1)), (60, 6, (4, 2, 2)), (256, 8, (8, 4, 2)),
] for scores in ("softmax", "sigmoid") for norm in (True, False) for biased in (True, False)]  # fmt: skip


@pytest.mark.parametrize(("count", "k", "scores", "norm", "biased", "groups"), CASES)
def test_against_the_twin(count, k, scores, norm, biased, groups):
    rng = np.random.default_rng(count + k)
    bias = rng.standard_normal(count).astype(np.float32) / 4 if biased else None
    routing = Routing(k, scores, norm, 1.5, bias, *groups)
    logits = 2 * rng.standard_normal((33, count)).astype(np.float32)
    experts, weights = route(logits, routing, threads=2)
    for row, chosen, factors in zip(logits, experts, weights, strict=True):
        expected, values = choose(row, routing)
        assert chosen.tolist() == expected.tolist()
        np.testing.assert_allclose(factors, values, rtol=2e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("groups", [1, 4])
def test_logits_that_are_no_numbers_choose_experts_that_exist(value, groups):
    bias = np.zeros(16, np.float32)
    for logits in (np.full(16, value), np.where(np.arange(16) % 3, value, 1), np.where(np.arange(16) < 15, value, 1)):
        for routing in (Routing(4), Routing(4, "sigmoid", False, 1.0, bias, groups, 1 + groups // 2, 2)):
            chosen, _ = one(logits, routing)
            assert len(set(chosen)) == 4
            assert all(0 <= expert < 16 for expert in chosen)


@pytest.mark.parametrize(
    ("routing", "words"),
    [
        (Routing(9), "9 of 8 experts"),
        (Routing(0), "0 of 8 experts"),
        (Routing(2, groups=3), "of 3 groups"),
        (Routing(2, groups=4, groups_used=5), "5 of 4 groups"),
        (Routing(2, groups=4, groups_used=0), "0 of 4 groups"),
        (Routing(3, groups=4, groups_used=1), "3 of 8 experts from 1 of 4"),
        (Routing(2, groups=8, groups_used=2, group_best=2), "2 of 8 groups"),
        (Routing(2, bias=np.zeros(7, np.float32)), "8 experts"),
    ],
)
def test_what_cannot_be_chosen(routing, words):
    with pytest.raises(ValueError, match=words):
        routing.check(8)
