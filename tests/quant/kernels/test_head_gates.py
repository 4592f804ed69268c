"""Gates of whole heads."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import float_matrix, new_plan, random_rows, running

from qcli.doctor.twins.functions import sigmoid
from qcli.doctor.twins.matmul import size
from quant.kernels.head_gates import gate_heads
from quant.kernels.matmul import add_matmul
from quant.plan import Activation


def gated(x, gates, threads=1, readers=()):
    """x gated, and what each reader, a matrix, makes of it."""
    plan = new_plan(len(x), threads)
    given, by, out = Activation(*x.shape), Activation(*gates.shape), Activation(*x.shape)
    gate_heads(plan, given, by, out)
    results = [Activation(len(x), w.rows) for w in readers]
    for w, y in zip(readers, results, strict=True):
        add_matmul(plan, out, w, y)
    given.values[:], by.values[:] = x, gates
    _ = out.values
    with running(plan) as run:
        run()
    return out.values.copy(), [y.values.copy() for y in results]


def test_by_hand():
    x = np.arange(64, dtype=np.float32).reshape(1, 64)
    found, _ = gated(x, np.array([[0, -200, 200, 0]], np.float32))
    np.testing.assert_allclose(found[0], x[0] * np.repeat([0.5, 0, 1, 0.5], 16), rtol=1e-6)


@pytest.mark.parametrize(("tokens", "heads", "width"), [(1, 4, 32), (5, 2, 16), (3, 6, 48)])
def test_against_numpy_in_every_layout(tokens, heads, width):
    rng = np.random.default_rng(0)
    x, gates = (rng.standard_normal((tokens, n)).astype(np.float32) for n in (heads * width, heads))
    readers = [
        random_rows(rng, "Q8_0", 16, heads * width),
        float_matrix("F32", rng.standard_normal((16, heads * width))),
    ]
    one, products = gated(x, gates, 1, readers)
    np.testing.assert_allclose(one, x * np.repeat(sigmoid(gates.astype(float)), width, axis=1), rtol=1e-6, atol=1e-7)
    for w, y in zip(readers, products, strict=True):
        assert np.abs((y - one @ w.format.dequantize(w.data).T) / size(one, w)).max() < 1e-4
    for threads in (2, 3):
        again, more = gated(x, gates, threads, readers)
        assert all(np.array_equal(a, b) for a, b in zip([one, *products], [again, *more], strict=True))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="3 gates of 64 columns"):
        gate_heads(new_plan(1), Activation(1, 64), Activation(1, 3), Activation(1, 64))
