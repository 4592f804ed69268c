"""The gated short convolution, token by token and in chunks."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, random_rows, running, source

from qcli.doctor.twins.matmul import matmul
from qcli.doctor.twins.short_conv import short_conv as twin
from quant.kernels.matmul import add_matmul
from quant.kernels.short_conv import short_conv
from quant.plan import Activation, aligned


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(bcx, weight, chunks, threads=1):
    """The text in pieces of these lengths; the last piece may be shorter than its plan."""
    conv_state, outputs, position = aligned(weight.shape, np.float32), [], 0
    for tokens in chunks:
        plan, part = new_plan(tokens, threads), bcx[position : position + tokens]
        out = Activation(tokens, weight.shape[1])
        out.read("f32")
        given = np.zeros((tokens, bcx.shape[1]), np.float32)
        given[: len(part)] = part
        short_conv(plan, source(plan, given), weight, conv_state, out)
        with running(plan) as go:
            go(len(part), position)
        outputs.append(out.values[: len(part)].copy())
        position += len(part)
    return np.vstack(outputs)


def test_on_paper():
    """b = 1, c = 2: y is twice x of now, and 20 and 200 times x of one and two tokens before."""
    weight = np.repeat(np.array([[100], [10], [1]], np.float32), 32, axis=1)
    x = np.repeat(np.arange(1, 5, dtype=np.float32)[:, None], 32, axis=1)
    bcx = np.hstack([np.ones_like(x), 2 * np.ones_like(x), x])
    for chunks in ([4], [1, 1, 1, 1]):
        assert run(bcx, weight, chunks)[:, 0].tolist() == [2, 24, 246, 468]


@pytest.mark.parametrize("taps", [2, 3, 4])
@pytest.mark.parametrize("chunks", [[33], [1] * 33, [7] * 5, [2, 1, 16, 1, 13], [30, 1, 1, 1]])
def test_against_the_twin(chunks, taps):
    bcx, weight = normal(0, 33, 3 * 96), normal(1, taps, 96)
    expected = twin(bcx, weight)
    for threads in (1, 2, 5):
        found = run(bcx, weight, chunks, threads)
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_a_matrix_may_read_it_quantized():
    bcx, weight, w = normal(2, 9, 3 * 64), normal(3, 3, 64), random_rows(np.random.default_rng(4), "Q8_0", 32, 64)
    plan, out, y = new_plan(9), Activation(9, 64), Activation(9, 32)
    short_conv(plan, source(plan, bcx), weight, aligned(weight.shape, np.float32), out)
    add_matmul(plan, out, w, y)
    with running(plan) as go:
        go()
    expected = matmul(twin(bcx, weight).astype(np.float32), w, kind="residual")
    assert np.linalg.norm(y.values - expected) <= 1e-4 * np.linalg.norm(expected)


def test_shapes_are_checked():
    weight = normal(5, 3, 48)
    with pytest.raises(ValueError, match="48 channels"):
        short_conv(new_plan(1), Activation(1, 144), weight, aligned(weight.shape, np.float32), Activation(1, 48))
    weight = normal(5, 3, 64)
    with pytest.raises(ValueError, match="191 and 64"):
        short_conv(new_plan(1), Activation(1, 191), weight, aligned(weight.shape, np.float32), Activation(1, 64))
