"""Stepwise plans: every token of a replay gets, bit by bit, what a plan of one token gives it."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, random_rows, replay, source, stacked

from quant import formats
from quant.kernels.experts import GatedExperts, LayerExperts, dense_step, experts_step
from quant.kernels.experts_few import dense_few, experts_few
from quant.kernels.head_matmul import head_matmul
from quant.kernels.matmul import add_matmul, matmul
from quant.kernels.router import Routing
from quant.plan import Activation

TOKENS = [2, 3, 4, 5, 6, 7, 8, 11]
NAMES = formats.names()


def odd_columns(name):
    """Columns in two parts of a tile, where blocks are short enough not a multiple of 256."""
    return 1280 + (96 if formats.find(name).block.columns <= 32 else 0)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def each_alone(compute, *inputs):
    """What `compute` makes of every row of the inputs in a plan of its own, one behind the other."""
    return np.concatenate([compute(*(rows[t : t + 1] for rows in inputs)) for t in range(len(inputs[0]))])


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("name", NAMES)
def test_matrices_of_every_format(name, tokens):
    rng, columns = np.random.default_rng(1), odd_columns(name)
    first, second = (random_rows(rng, name, rows, columns) for rows in (37, 3))

    def products(x, threads=1):
        plan = new_plan(len(x), threads, stepwise=True)
        results = [Activation(len(x), w.rows) for w in (first, second)]
        matmul(plan, source(plan, x), list(zip((first, second), results, strict=True)), 0.5)
        replay(plan)
        return np.concatenate([y.values for y in results], axis=1)

    x = normal(2, tokens, columns)
    expected = each_alone(products, x)
    for threads in (1, 3):
        assert np.array_equal(products(x, threads), expected)


@pytest.mark.parametrize("tokens", [2, 7, 8, 17])
@pytest.mark.parametrize("name", ["Q3_K", "Q4_K", "Q6_K"])
def test_columns_in_several_parts(name, tokens):
    w, x = random_rows(np.random.default_rng(3), name, 37, 20 * 256), normal(4, tokens, 20 * 256)

    def products(x):
        plan, y = new_plan(len(x), stepwise=True), Activation(len(x), w.rows)
        matmul(plan, source(plan, x), [(w, y)], 0.5)
        replay(plan)
        return y.values.copy()

    assert np.array_equal(products(x), each_alone(products, x))


def test_quantized_types_are_multiplied_by_tiles():
    assert {name for name in NAMES if not formats.find(name).by_tiles} == {"F32", "F16", "BF16", "NVFP4"}


@pytest.mark.parametrize("name", ["F32", "Q8_0", "Q4_K", "Q6_K", "Q2_K"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("tokens", [1, 6, 16])
def test_what_is_added_with_residual_and_bias(name, biased, tokens):
    rng = np.random.default_rng(3)
    w = random_rows(rng, name, 35, 256)
    if biased:
        object.__setattr__(w, "bias", normal(4, 35))

    def sums(x, before, threads=1):
        plan = new_plan(len(x), threads, stepwise=True)
        y = Activation(*before.shape)
        y.values[:] = before
        add_matmul(plan, source(plan, x), w, y, 1.5)
        replay(plan)
        return y.values.copy()

    x, before = normal(5, tokens, 256), normal(6, tokens, 35)
    assert np.array_equal(sums(x, before, 2), each_alone(sums, x, before))


def layer_of(rng, name, down, count, biased=False, shared=True):
    def experts(kind, rows, columns, count):
        made = stacked([random_rows(rng, kind, rows, columns) for _ in range(count)])
        if biased:
            object.__setattr__(made, "bias", rng.standard_normal((count, rows)).astype(np.float32))
        return made

    def gated(count):
        return GatedExperts(experts(name, 64, 256, count), experts(name, 64, 256, count), experts(down, 256, 64, count))

    routing = Routing(experts_per_token=3)
    return LayerExperts(gated(count), gated(1) if shared else None, routing, np.zeros(count, np.uint8), 0.75)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("name", "down"), [("Q4_K", "Q8_0"), ("Q6_K", "Q5_0"), ("BF16", "F32"), ("Q2_K", "MXFP4")])
@pytest.mark.parametrize("tokens", TOKENS)
def test_experts(name, down, tokens, biased):
    layer = layer_of(np.random.default_rng(7), name, down, 5, biased)

    def added(h, logits, gate, x, threads=1):
        plan = new_plan(len(h), threads, stepwise=True)
        rows = Activation(*x.shape)
        rows.values[:] = x
        trace = experts_step if plan.tokens == 1 else experts_few
        trace(plan, layer, source(plan, h), source(plan, logits), source(plan, gate), rows)
        replay(plan)
        return rows.values.copy()

    inputs = normal(8, tokens, 256), normal(9, tokens, 5), normal(10, tokens, 1), normal(11, tokens, 256)
    expected = each_alone(added, *inputs)
    touched = layer.touched.copy()
    for threads in (1, 2, 5):
        layer.touched[:] = 0
        assert np.array_equal(added(*inputs, threads), expected)
        assert np.array_equal(layer.touched, touched)


@pytest.mark.parametrize("tokens", TOKENS)
def test_an_expert_that_every_token_takes(tokens):
    layer = layer_of(np.random.default_rng(12), "Q4_K", "Q8_0", 4).shared

    def added(h, x, threads=1):
        plan = new_plan(len(h), threads, stepwise=True)
        rows = Activation(*x.shape)
        rows.values[:] = x
        (dense_step if plan.tokens == 1 else dense_few)(plan, layer, source(plan, h), rows)
        replay(plan)
        return rows.values.copy()

    inputs = normal(13, tokens, 256), normal(14, tokens, 256)
    assert np.array_equal(added(*inputs, 3), each_alone(added, *inputs))


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("name", ["F32", "Q8_0"])
def test_a_matrix_for_each_head(name, tokens):
    rng, heads = np.random.default_rng(15), 3
    w = stacked([random_rows(rng, name, 32, 64) for _ in range(heads)])

    def products(x, threads=1):
        plan = new_plan(len(x), threads, stepwise=True)
        y = Activation(len(x), heads * 48)
        head_matmul(plan, source(plan, x.reshape(-1, 64)), w, y, 16)
        replay(plan)
        return y.values.copy()

    x = normal(16, tokens, heads * 64)
    assert np.array_equal(products(x, 2), each_alone(products, x))
