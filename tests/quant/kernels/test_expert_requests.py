"""Guesses of what the next layer's router chooses, in pieces of any number of experts."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, replay, source

from quant import formats
from quant.jit import kernel
from quant.kernels.expert_loads import ARRIVALS
from quant.kernels.expert_requests import FOLLOWING, guess
from quant.weights import MATRIX, Matrix, operands_of

PIECES, COLUMNS, BEHIND = 8, 64, 16


@kernel
def guess_backwards(rank, size, following, arrivals, scratch, scratch_stride):
    """All pieces of a guess but the first, the last one first; so nobody is told that the guess is complete."""
    if rank == 0:
        for i in range(7):
            guess(following, arrivals, 7 - i, scratch)


@pytest.mark.parametrize("experts", [8, 24, 32, 60, 128, 144])
def test_a_bias_is_added_once_and_to_nothing_else(experts):
    rng = np.random.default_rng(0)
    weights, x, bias = (rng.standard_normal(n).astype(np.float32) for n in ((experts, COLUMNS), (1, COLUMNS), experts))
    router = Matrix(weights.view(np.uint8), formats.find("F32"), COLUMNS, bias)
    logits = np.full(experts + BEHIND, 7, np.float32)
    plan = new_plan(1)
    table = plan.table(
        FOLLOWING, layer=0, router=plan.table(MATRIX, **operands_of(router)), weights=router.data, routing=0,
        x=source(plan, x).read("f32"), logits=logits, then=0,
    )  # fmt: skip
    plan.add(guess_backwards, table, np.zeros(ARRIVALS.bytes // 8 + 1, np.int64), *plan.scratch(4096))
    replay(plan)
    first = experts // PIECES
    np.testing.assert_allclose(logits[first:experts], (weights @ x[0] + bias)[first:], rtol=1e-4, atol=1e-5)
    assert (logits[:first] == 7).all()
    assert (logits[experts:] == 7).all()
