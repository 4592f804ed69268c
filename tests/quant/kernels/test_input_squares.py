"""An observer that adds up the squares of the inputs of weights, against a sum that one can see through."""

import numpy as np
import pytest
from kernel_helpers import float_matrix, running, source

from quant.batch import Batch
from quant.kernels.assignments import Assignments
from quant.kernels.input_squares import InputSquares
from quant.kernels.matmul import matmul
from quant.kernels.observer import observe
from quant.plan import Plan


def plan_and_squares(tokens: int, threads: int = 1) -> tuple[Plan, InputSquares]:
    observer = InputSquares()
    return Plan(tokens, threads, Batch(), observer), observer


def test_squares_of_two_rows_on_paper():
    plan, observer = plan_and_squares(2)
    rows = np.zeros((2, 16), np.float32)
    rows[0, :3], rows[1, :2] = (1, 2, 3), (4, -5)
    observe(plan, ["a.weight", "b.weight"], source(plan, rows))
    with running(plan) as run:
        run()
    found = observer.squares["a.weight"]
    assert found.sums[0, :4].tolist() == [17, 29, 9, 0]
    assert found.counts.tolist() == [2]
    assert observer.squares["b.weight"] is found


@pytest.mark.parametrize("threads", [1, 3])
def test_each_expert_counts_its_own_rows(threads):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5, 48)).astype(np.float32)
    chosen = np.array([[0, 2], [2, 3], [2, 0], [3, 2], [0, 3]])  # of four experts; nobody chose the second
    pairs = np.argsort(chosen.reshape(-1), kind="stable").astype(np.int64)
    starts = np.searchsorted(np.sort(chosen.reshape(-1)), np.arange(5)).astype(np.int64)
    plan, observer = plan_and_squares(5, threads)
    observe(plan, ["experts"], source(plan, rows), Assignments(4, 2, starts, pairs))
    with running(plan) as run:
        run()
        run()
    found = observer.squares["experts"]
    assert found.counts.tolist() == [6, 0, 8, 6]
    for expert in range(4):
        wanted = 2 * (rows[(chosen == expert).any(1)].astype(np.float64) ** 2).sum(0)
        np.testing.assert_allclose(found.sums[expert], wanted, rtol=1e-6)


def test_only_the_tokens_of_this_replay_count():
    plan, observer = plan_and_squares(4)
    observe(plan, ["w"], source(plan, np.ones((4, 16), np.float32)))
    with running(plan) as run:
        run(3)
    assert observer.squares["w"].counts.tolist() == [3]
    assert observer.squares["w"].sums.tolist() == [[3.0] * 16]


def test_a_matmul_is_watched_once_and_only_in_a_plan_with_an_observer():
    plain = Plan(2, 1, Batch())
    watching, observer = plan_and_squares(2)
    for plan in (plain, watching):
        given = source(plan, np.ones((2, 32), np.float32))
        weights = float_matrix("F32", np.ones((4, 32)))
        named = type(weights)(weights.data, weights.format, weights.columns, name="blk.0.w")
        for _ in range(2):
            matmul(plan, given, [(named, plan.activation("y", 4))])
    assert len(plain.parts) + 1 == len(watching.parts)
    assert set(observer.squares) == {"blk.0.w"}
