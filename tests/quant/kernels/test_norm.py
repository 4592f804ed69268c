"""The root-mean-square norm, and the layouts of an activation that it writes."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import float_matrix, new_plan, random_rows, replay, source

from qcli.doctor.twins.matmul import matmul as matmul_twin
from qcli.doctor.twins.matmul import size
from qcli.doctor.twins.norm import rms_norm as twin
from quant.kernels.matmul import matmul
from quant.kernels.norm import add_rms_norm, rms_norm
from quant.plan import Activation

EPS = 1e-6


def normed(x, weight, eps=EPS, threads=1, rows=None):
    plan, out = new_plan(len(x), threads), Activation(len(x) if rows is None else rows, x.shape[1])
    _ = out.values
    rms_norm(plan, source(plan, x), weight, eps, out)
    replay(plan)
    return out.values


def random_input(tokens, columns):
    rng = np.random.default_rng(columns)
    x = rng.standard_normal((tokens, columns)) * 10.0 ** rng.integers(-3, 4, (tokens, 1))
    return x.astype(np.float32), rng.standard_normal(columns).astype(np.float32)


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_norm_done_on_paper(tokens):
    x, weight = np.full((tokens, 16), -2, np.float32), np.arange(16, dtype=np.float32)
    assert normed(x, weight, eps=0.0).tolist() == [(-weight).tolist()] * tokens
    assert normed(x, weight, eps=12.0).tolist() == [(-weight / 2).tolist()] * tokens


@pytest.mark.parametrize("tokens", [1, 2, 7, 65])
@pytest.mark.parametrize("columns", [16, 32, 48, 96, 512])
def test_random_rows(tokens, columns):
    x, weight = random_input(tokens, columns)
    expected = twin(x, weight, EPS)
    np.testing.assert_allclose(normed(x, weight), expected, rtol=1e-6)
    np.testing.assert_array_equal(normed(x, weight, threads=3), normed(x, weight))


def test_a_zero_row_stays_zero():
    assert not normed(np.zeros((2, 32), np.float32), np.ones(32, np.float32)).any()


def test_one_row_of_output_is_the_last_token_of_the_replay():
    x, weight = random_input(9, 64)
    np.testing.assert_array_equal(normed(x, weight, rows=1), normed(x, weight)[8:])
    np.testing.assert_array_equal(normed(x, weight, rows=1, threads=3), normed(x, weight)[8:])


@pytest.mark.parametrize("tokens", [1, 4])
def test_readers_of_both_layouts_are_served(tokens):
    x, weight = random_input(tokens, 256)
    plan, h = new_plan(tokens, threads=2), Activation(tokens, 256)
    rng = np.random.default_rng(0)
    matrices = [random_rows(rng, name, 20, 256) for name in ("Q8_0", "F32", "Q4_K")]
    results = [Activation(tokens, 20) for _ in matrices]
    rms_norm(plan, source(plan, x), weight, EPS, h)
    matmul(plan, h, list(zip(matrices, results, strict=True)))
    replay(plan)
    for w, y in zip(matrices, results, strict=True):
        assert np.abs((y.values - matmul_twin(h.values, w)) / size(h.values, w)).max() < 1e-6


def test_columns_that_only_floats_can_have():
    x, weight = random_input(2, 48)
    plan, h, y = new_plan(2), Activation(2, 48), Activation(2, 48)
    identity = float_matrix("F32", np.eye(48))
    rms_norm(plan, source(plan, x), weight, EPS, h)
    matmul(plan, h, [(identity, y)])
    replay(plan)
    np.testing.assert_allclose(y.values, twin(x, weight, EPS), rtol=1e-6)


def test_shapes_are_checked():
    plan, x = new_plan(1), Activation(1, 32)
    for weight, columns in [(np.ones(16, np.float32), 32), (np.ones(32, np.float32), 64)]:
        with pytest.raises(ValueError, match="norm of 32 columns"):
            rms_norm(plan, x, weight, EPS, Activation(1, columns))


@pytest.mark.parametrize("tokens", [1, 2, 65])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_norm_of_what_is_added(tokens, threads):
    """x += norm(y), and y is zero for the next who adds to it."""
    y, weight = random_input(tokens, 48)
    before = random_input(tokens, 48)[0][::-1]
    plan, x, added = new_plan(tokens, threads), Activation(tokens, 48), Activation(tokens, 48)
    x.values[:], added.values[:] = before, y
    add_rms_norm(plan, added, weight, EPS, x)
    replay(plan)
    np.testing.assert_allclose(x.values, before + twin(y, weight, EPS), rtol=1e-5, atol=1e-5)
    assert not added.values.any()
    x.values[:], added.values[:] = before, y
    plan = new_plan(tokens, threads)
    add_rms_norm(plan, added, weight[:16], EPS, x, scale=0.5)  # three groups, each by itself
    replay(plan)
    groups = twin(y.reshape(tokens, 3, 16), weight[:16], EPS).reshape(tokens, 48)
    np.testing.assert_allclose(x.values, 0.5 * (before + groups), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="32 columns"):
        add_rms_norm(plan, Activation(tokens, 32), weight, EPS, x)
