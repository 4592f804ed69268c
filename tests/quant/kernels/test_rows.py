"""Rows that others add to: cleared, and copied in the layouts that are read."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import float_matrix, new_plan, replay

from quant import formats
from quant.kernels import rows
from quant.kernels.matmul import add_matmul
from quant.plan import Activation
from quant.weights import Matrix


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("most", "tokens"), [(1, 1), (5, 3)])
def test_only_the_rows_of_this_replay_are_cleared(threads, most, tokens):
    plan, y = new_plan(most, threads), Activation(most, 96)
    y.values[:] = 1
    rows.clear(plan, y)
    replay(plan, tokens)
    assert not y.values[:tokens].any()
    assert (y.values[tokens:] == 1).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_copies_are_what_is_read_of_them(threads, tokens, kind):
    values = np.random.default_rng(0).integers(-127, 128, (tokens, 64)).astype(np.float32)
    values[:, ::32] = 127  # so that a scale is 1, and nothing is rounded
    plan, y, out, x = new_plan(tokens, threads), Activation(tokens, 64), Activation(tokens, 64), Activation(tokens, 16)
    y.values[:] = values
    rows.copy(plan, y, out)
    w = np.zeros((16, 64), np.float32)
    w[np.arange(16), 3 * np.arange(16)] = 127
    matrix = float_matrix("F32", w) if kind == "F32" else quantized(w)
    add_matmul(plan, out, matrix, x)
    replay(plan)
    assert np.array_equal(x.values, values @ w.T)


def quantized(w):
    """Q8_0 whose scales are 1."""
    blocks = np.zeros((len(w), w.shape[1] // 32, 34), np.uint8)
    blocks[:, :, :2] = np.array([1], np.float16).view(np.uint8)
    blocks[:, :, 2:] = w.reshape(len(w), -1, 32).astype(np.int8).view(np.uint8)
    return Matrix(blocks.reshape(len(w), -1), formats.find("Q8_0"), w.shape[1])


def test_shapes_are_checked():
    for columns, others in ((48, 48), (64, 32)):
        with pytest.raises(ValueError, match="32"):
            rows.copy(new_plan(1), Activation(1, columns), Activation(1, others))
    with pytest.raises(ValueError, match="48 columns"):
        rows.clear(new_plan(1), Activation(1, 48))
