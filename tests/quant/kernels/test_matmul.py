"""Dense matrices times activations, and rows of the embedding table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernel_helpers import float_matrix, new_plan, random_rows, replay, running, source

from qcli.doctor.twins.activation import seen
from qcli.doctor.twins.matmul import matmul as twin
from qcli.doctor.twins.matmul import size, weights
from quant.kernels.embed import embed
from quant.kernels.matmul import add_matmul, matmul
from quant.plan import Activation, aligned

TOKENS = [1, 2, 7, 8, 9, 65]


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def products(x, matrices, threads=1, scale=1.0):
    """One record for all matrices."""
    plan = new_plan(len(x), threads)
    given = source(plan, x)
    results = [Activation(len(x), w.rows) for w in matrices]
    matmul(plan, given, list(zip(matrices, results, strict=True)), scale)
    replay(plan)
    return [y.values.copy() for y in results]


def sums(x, w, before, threads=1, scale=1.0):
    """before + scale * x w^T."""
    plan = new_plan(len(x), threads)
    y = Activation(*before.shape)
    y.values[:] = before
    add_matmul(plan, source(plan, x), w, y, scale)
    replay(plan)
    return y.values


@pytest.mark.parametrize("tokens", [1, 3])
def test_the_identity_gives_its_input(tokens):
    x = normal(0, tokens, 48)
    for name in ("F32", "F16", "BF16"):
        (y,) = products(x, [float_matrix(name, np.eye(48))])
        assert np.array_equal(y, x)


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_product_done_on_paper(tokens):
    x = np.zeros((tokens, 16), np.float32)
    x[:, :3] = 1, 2, 3
    w = np.zeros((2, 16))
    w[:, :3] = [[1, 1, 1], [2, 0, -1]]
    (y,) = products(x, [float_matrix("F32", w)])
    assert y.tolist() == [[6, -1]] * tokens
    assert sums(x, float_matrix("F32", w), y).tolist() == [[12, -2]] * tokens


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 32), (16, 64), (17, 96), (31, 256), (100, 512)])
def test_float_matrices(tokens, rows, columns):
    w, x = random_rows(np.random.default_rng(1), "F32", rows, columns), normal(2, tokens, columns)
    (y,) = products(x, [w])
    assert np.abs((y - twin(x, w)) / size(x, w)).max() < 3e-7


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("name", ["Q8_0", "Q6_K"])
def test_quantized_matrices(tokens, name):
    for rows in (1, 16, 35):
        w, x = random_rows(np.random.default_rng(3), name, rows, 256), normal(4, tokens, 256)
        (y,) = products(x, [w])
        assert np.abs((y - twin(x, w)) / size(x, w)).max() < 1e-6


@pytest.mark.parametrize("tokens", [1, 5])
def test_matrices_of_several_formats_share_a_record(tokens):
    rng, x = np.random.default_rng(5), normal(6, tokens, 512)
    matrices = [
        random_rows(rng, name, rows, 512) for name, rows in [("Q4_K", 40), ("F32", 3), ("Q8_0", 17), ("BF16", 1)]
    ]
    for y, w in zip(products(x, matrices, threads=2), matrices, strict=True):
        assert np.abs((y - twin(x, w)) / size(x, w)).max() < 1e-6


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("name", ["F32", "Q4_0", "Q8_0", "Q4_K"])
def test_sums_take_more_of_the_input_than_int8(tokens, name):
    x, before = normal(7, tokens, 256), normal(8, tokens, 37)
    x[:, ::32] *= 50
    w = random_rows(np.random.default_rng(9), name, 37, 256)
    found, kind = sums(x, w, before), "f32" if name == "F32" else "residual"
    expected = before + seen(x, kind) @ weights(w).T
    assert np.abs((found - expected) / (size(x, w) + np.abs(before))).max() < 1e-6
    true = before + x @ weights(w).T
    assert np.linalg.norm(found - true) < 1e-4 * np.linalg.norm(true)


@pytest.mark.parametrize("name", ["F32", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("tokens", [1, 9])
def test_the_number_of_threads_changes_no_bit(name, tokens):
    w, x, before = (
        random_rows(np.random.default_rng(10), name, 77, 256),
        normal(11, tokens, 256),
        normal(12, tokens, 77),
    )
    one, summed = products(x, [w])[0], sums(x, w, before)
    for threads in (2, 3, 5):
        assert np.array_equal(products(x, [w], threads)[0], one)
        assert np.array_equal(sums(x, w, before, threads), summed)


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_bias_and_a_scale_done_on_paper(tokens):
    w = replace(float_matrix("F32", [[1] * 16, [2] * 16]), bias=np.array([0.5, -1], np.float32))
    x = np.ones((tokens, 16), np.float32)
    (y,) = products(x, [w])
    assert y.tolist() == [[16.5, 31]] * tokens
    assert sums(x, w, y, scale=2.0).tolist() == [[16.5 + 33, 31 + 62]] * tokens


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("name", ["F32", "Q8_0", "Q4_K"])
def test_biases_and_scales(tokens, name):
    rng, x = np.random.default_rng(17), normal(18, tokens, 256)
    plain = [random_rows(rng, name, rows, 256) for rows in (1, 16, 35)]
    matrices = [replace(w, bias=normal(w.rows, w.rows)) for w in plain]
    for threads in (1, 3):
        for y, w in zip(products(x, [*matrices, plain[0]], threads, 0.25), [*matrices, plain[0]], strict=True):
            assert np.abs((y - twin(x, w, 0.25)) / size(x, w)).max() < 1e-6
        w, before = matrices[2], normal(19, tokens, 35)
        expected = before + twin(x, w, -3.0, "f32" if name == "F32" else "residual")
        assert np.abs((sums(x, w, before, threads, -3.0) - expected) / (3 * size(x, w) + np.abs(before))).max() < 2e-6


def test_a_bias_has_a_number_for_each_row():
    w = float_matrix("F32", np.ones((4, 16)))
    with pytest.raises(ValueError, match="4 rows"):
        replace(w, bias=np.ones(3, np.float32))
    assert replace(w, bias=np.arange(4, dtype=np.float32)).part(1, 3).bias.tolist() == [1, 2]


def test_more_threads_than_rows():
    w, x = float_matrix("F32", np.ones((2, 16))), np.ones((1, 16), np.float32)
    assert products(x, [w], threads=5)[0].tolist() == [[16, 16]]


def test_a_replay_takes_fewer_tokens_than_its_plan():
    x, w = normal(13, 8, 64), random_rows(np.random.default_rng(14), "F32", 20, 64)
    plan, y = new_plan(8), Activation(8, 20)
    matmul(plan, source(plan, x), [(w, y)])
    with running(plan) as run:
        run(8)
        whole = y.values.copy()
        y.values[:] = -1
        run(3)
    assert np.array_equal(y.values[:3], whole[:3])
    assert (y.values[3:] == -1).all()


def test_shapes_are_checked_when_the_plan_is_made():
    plan, w = new_plan(2), random_rows(np.random.default_rng(15), "F32", 8, 32)
    with pytest.raises(ValueError, match="64"):
        matmul(plan, Activation(2, 64), [(w, Activation(2, 8))])
    with pytest.raises(ValueError, match="9"):
        matmul(plan, Activation(2, 32), [(w, Activation(2, 9))])
    with pytest.raises(ValueError, match="1, 8"):
        matmul(plan, Activation(2, 32), [(w, Activation(1, 8))])


def test_quantized_weights_need_whole_blocks_of_activations():
    with pytest.raises(ValueError, match="48"):
        Activation(1, 48).read("q8")


def test_embedding_rows_are_the_rows_of_the_table():
    table = float_matrix("F32", np.arange(5 * 16).reshape(5, 16))
    plan, ids, out = new_plan(4, threads=3), aligned(4, np.int64), Activation(4, 16)
    embed(plan, ids, table, out)
    ids[:] = 4, 0, 4, 2
    replay(plan)
    assert out.values[:, 0].tolist() == [64, 0, 64, 32]
    assert np.array_equal(out.values[0], np.arange(64, 80))


@pytest.mark.parametrize("name", ["F32", "Q8_0"])
def test_embedding_rows_are_scaled(name):
    table = random_rows(np.random.default_rng(20), name, 5, 64)
    plan, ids, out = new_plan(3), aligned(3, np.int64), Activation(3, 64)
    embed(plan, ids, table, out, 8.0)
    ids[:] = 4, 0, 4
    replay(plan)
    np.testing.assert_allclose(out.values, 8 * table.format.dequantize(table.data)[ids], rtol=1e-6)


def test_embedding_shapes_are_checked():
    table = float_matrix("F32", np.ones((5, 16)))
    with pytest.raises(ValueError, match="3 ids"):
        embed(new_plan(4), aligned(3, np.int64), table, Activation(4, 16))
    with pytest.raises(ValueError, match="32 columns"):
        embed(new_plan(4), aligned(4, np.int64), table, Activation(4, 32))


def test_the_plan_counts_the_bytes_that_a_token_reads():
    plan, w = new_plan(1), random_rows(np.random.default_rng(16), "Q4_K", 10, 256)
    matmul(plan, Activation(1, 256), [(w, Activation(1, 10))])
    assert plan.weight_bytes == 1440
    embed(plan, aligned(1, np.int64), w, Activation(1, 256))
    assert plan.weight_bytes == 1440 + 144
