"""The gate of a per-layer embedding, and logits that are held within a limit."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, random_rows, replay, source

from qcli.doctor.twins.functions import gelu
from qcli.doctor.twins.matmul import matmul as matmul_twin
from qcli.doctor.twins.matmul import size
from quant.kernels.cap_logits import cap_logits
from quant.kernels.gate_columns import gate_columns
from quant.kernels.matmul import matmul
from quant.plan import Activation


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("columns", "first"), [(16, 32), (32, 16), (48, 0)])
def test_a_gate_times_some_columns(tokens, threads, columns, first):
    rng = np.random.default_rng(columns)
    gate, x = (rng.standard_normal((tokens, n)).astype(np.float32) for n in (columns, 80))
    plan, out = new_plan(tokens, threads), Activation(tokens, columns)
    _ = out.values
    gate_columns(plan, source(plan, gate), source(plan, x), first, out, "gelu")
    replay(plan)
    expected = gelu(gate.astype(np.float64)) * x[:, first : first + columns]
    np.testing.assert_allclose(out.values, expected, rtol=1e-5, atol=1e-6)


def test_a_quantized_matrix_reads_what_was_gated():
    rng = np.random.default_rng(0)
    gate, x = (rng.standard_normal((3, n)).astype(np.float32) for n in (256, 512))
    plan, out, y = new_plan(3), Activation(3, 256), Activation(3, 20)
    _ = out.values, y.values
    w = random_rows(rng, "Q4_K", 20, 256)
    gate_columns(plan, source(plan, gate), source(plan, x), 256, out, "gelu")
    matmul(plan, out, [(w, y)])
    replay(plan)
    assert np.abs((y.values - matmul_twin(out.values, w)) / size(out.values, w)).max() < 1e-6


def test_columns_that_are_not_there():
    plan = new_plan(1)
    for columns, first in ((32, 64), (24, 0), (32, 8)):
        with pytest.raises(ValueError, match="columns of 80"):
            gate_columns(plan, Activation(1, columns), Activation(1, 80), first, Activation(1, columns), "gelu")


@pytest.mark.parametrize("threads", [1, 3])
def test_logits_within_a_limit(threads):
    x = np.linspace(-200, 200, 4 * 50).reshape(4, 50).astype(np.float32)
    plan = new_plan(4, threads)
    logits = source(plan, x)
    cap_logits(plan, logits, 30.0)
    replay(plan)
    np.testing.assert_allclose(logits.values, 30 * np.tanh(x / 30.0), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="logits within"):
        cap_logits(plan, logits, float("nan"))
