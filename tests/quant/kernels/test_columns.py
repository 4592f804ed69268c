"""Rows that others add to: cleared, and then quantized for who reads them."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, random_rows, replay

from quant.kernels import columns
from quant.kernels.matmul import add_matmul
from quant.plan import Activation


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("most", "tokens"), [(1, 1), (5, 3)])
def test_only_the_rows_of_this_replay_are_cleared(threads, most, tokens):
    plan, x = new_plan(most, threads), Activation(most, 48)
    x.values[:] = 1
    columns.clear(plan, x)
    replay(plan, tokens)
    assert not x.values[:tokens].any()
    assert (x.values[tokens:] == 1).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_quantized_rows_are_those_that_were_written(threads, tokens, kind):
    rng = np.random.default_rng(0)
    plan, x, y = new_plan(tokens, threads), Activation(tokens, 64), Activation(tokens, 16)
    x.values[:] = rng.standard_normal((tokens, 64))
    w = random_rows(rng, kind, 16, 64)
    columns.quantize(plan, x)
    add_matmul(plan, x, w, y)
    replay(plan)
    expected = x.values @ w.format.dequantize(w.data).T
    assert np.linalg.norm(y.values - expected) < 1e-4 * np.linalg.norm(expected)


def test_columns_are_checked():
    with pytest.raises(ValueError, match="40 columns"):
        columns.clear(new_plan(1), Activation(1, 40))
