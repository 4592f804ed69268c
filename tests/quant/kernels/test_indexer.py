"""Blocks of positions that a token sees, chosen by an indexer, and attention to them alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernel_helpers import new_plan, replay, replay_texts, running, source, texts_plan

from qcli.doctor.twins import indexer as twin
from qcli.doctor.twins.attention import heads
from qcli.doctor.twins.functions import softmax
from qcli.doctor.twins.kv_cache import rows
from qcli.doctor.twins.rope import angles as rope_angles
from quant.kernels.attention import Heads, attention
from quant.kernels.block_mask import BlockMask
from quant.kernels.indexer import Indexer
from quant.kernels.kv_cache import row_shape
from quant.kernels.rope import Rope, frequencies
from quant.kernels.select_blocks import select_blocks
from quant.plan import Activation, aligned

WIDTH, CONTEXT, BASE, EPS = 32, 256, 1e4, 1e-6
ROPE = Rope(frequencies(16, BASE))


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def indexer(count=3, block=4, budget=5, kv="f16", most_tokens=1):
    norms = 1 + normal(0, WIDTH) / 4, 1 + normal(1, WIDTH) / 4
    row, kind = row_shape(kv, WIDTH)
    cache, last_keys = aligned((1, CONTEXT, row), kind), aligned((block + most_tokens - 1, WIDTH), np.float32)
    return Indexer(count, WIDTH, block, budget, norms, EPS, cache, last_keys)


def selected(x, q, k, sizes, threads=1):
    """What each token sees, uint8 [tokens, blocks], the text given in pieces."""
    seen, first = [], 0
    for size in sizes:
        plan = new_plan(size, threads)
        found = select_blocks(
            plan, source(plan, q[first : first + size]), source(plan, k[first : first + size]), ROPE, x
        )
        replay(plan, size, first)
        seen.append(found.blocks.copy())
        first += size
    return np.vstack(seen)


@pytest.mark.parametrize("sizes", [[90], [1] * 90, [7] * 12 + [6], [3, 1, 64, 2, 20]])
@pytest.mark.parametrize(("block", "budget"), [(4, 5), (7, 2), (16, 1), (1, 9)])
def test_what_is_seen_is_what_the_twin_sees(block, budget, sizes):
    q, k = normal(2, 90, 3 * WIDTH), normal(3, 90, WIDTH)
    angles = rope_angles(np.arange(90), 16, BASE)
    for threads in (1, 3):
        x = indexer(block=block, budget=budget)
        found = selected(x, q, k, sizes, threads)
        kept = rows(x.k_cache, WIDTH)[0, : 90 // block]
        keys = twin.block_keys(k, x.norms[1], EPS, angles, block)
        assert np.abs(kept - keys).max() < 2e-3 * np.abs(keys).max()
        expected = twin.block_mask(heads(q.reshape(90, 3, WIDTH), x.norms[0], EPS, angles), kept, block, budget)
        for t in range(90):
            whole = (t + 1) // block
            assert found[t, : whole + 1].tolist() == expected[t, : whole + 1].tolist()


@pytest.mark.parametrize("kv", ["f16", "q8_0", "f32"])
@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_any_number_of_heads(count, kv):
    q, k, angles = normal(2, 90, count * WIDTH), normal(3, 90, WIDTH), rope_angles(np.arange(90), 16, BASE)
    x = indexer(count=count, kv=kv)
    found = selected(x, q, k, [60] + [1] * 30)
    queries = heads(q.reshape(90, count, WIDTH), x.norms[0], EPS, angles)
    expected = twin.block_mask(queries, rows(x.k_cache, WIDTH)[0, : 90 // 4], 4, 5)
    for t in range(90):
        assert found[t, : (t + 1) // 4 + 1].tolist() == expected[t, : (t + 1) // 4 + 1].tolist()


def test_everything_is_seen_while_there_is_little():
    x = indexer(block=4, budget=5)
    found = selected(x, normal(4, 90, 3 * WIDTH), normal(5, 90, WIDTH), [90])
    assert found[:23].sum(axis=1).tolist() == [(t + 1) // 4 + 1 for t in range(23)]
    assert (found[23:].sum(axis=1) >= 5).all()
    assert found[24:27].sum(axis=1).tolist() == [6] * 3  # five of six, and what follows them


@pytest.mark.parametrize(("block", "budget"), [(4, 5), (7, 2), (16, 1), (1, 9)])
def test_wrong_guesses_at_every_position_leave_no_trace(block, budget):
    """Steps of several tokens of which all but the first one, two, … turn out to be wrong."""
    q, k = normal(2, 90, 3 * WIDTH), normal(3, 90, WIDTH)
    one = indexer(block=block, budget=budget)
    expected = selected(one, q, k, [20] + [1] * 70)
    for threads, stay, width in ((1, 1, 16), (2, 1, 5), (3, 3, 8), (1, 5, 6)):
        x, first = indexer(block=block, budget=budget, most_tokens=16), 20
        selected(x, q, k, [20])
        while first + width <= 90:
            plan = new_plan(width, threads, stepwise=True)
            given = [source(plan, rows[first : first + width].copy()) for rows in (q, k)]
            for rows_of in given:
                rows_of.values[stay:] *= -3
            found = select_blocks(plan, *given, ROPE, x)
            replay(plan, width, first)
            for t in range(first, first + stay):
                whole = (t + 1) // block + 1
                assert np.array_equal(found.blocks[t - first, :whole], expected[t, :whole])
            first += stay
            done = first // block
            assert np.array_equal(x.k_cache[0, :done], one.k_cache[0, :done])


@pytest.mark.parametrize(("block", "budget"), [(4, 5), (7, 2), (1, 9)])
def test_several_texts_each_with_its_own_blocks(block, budget):
    """Each takes a token where it is, in steps of one to three of them."""
    inputs = [(normal(20 + i, 60, 3 * WIDTH), normal(30 + i, 60, WIDTH)) for i in range(3)]
    expected = [selected(indexer(block=block, budget=budget), q, k, [1] * 60) for q, k in inputs]
    x, rng = indexer(block=block, budget=budget), np.random.default_rng(40)
    for threads in (1, 2):
        plan, _ = texts_plan(3, threads, x.k_cache, x.last_keys)
        given = [source(plan, np.zeros((3, columns), np.float32)) for columns in (3 * WIDTH, WIDTH)]
        found, at = select_blocks(plan, *given, ROPE, x), [0, 0, 0]
        while min(at) < 60:
            taken = rng.permutation([i for i in range(3) if at[i] < 60])[: rng.integers(1, 4)].tolist()
            for rows_of, each in zip(given, zip(*inputs, strict=True), strict=True):
                rows_of.values[: len(taken)] = [each[i][at[i]] for i in taken]
            replay_texts(plan, taken, [at[i] for i in taken])
            for row, i in zip(found.blocks, taken, strict=False):
                whole = (at[i] + 1) // block + 1
                assert np.array_equal(row[:whole], expected[i][at[i], :whole])
                at[i] += 1


def test_equal_ratings_go_to_the_lower_blocks():
    found = selected(indexer(), np.zeros((40, 3 * WIDTH), np.float32), normal(6, 40, WIDTH), [40])
    assert found[-1, :10].tolist() == [1] * 5 + [0] * 5


@pytest.mark.parametrize("kv", ["f16", "q8_0", "f32"])
@pytest.mark.parametrize("sizes", [[90], [1] * 90, [40, 1, 49]])
def test_attention_to_what_is_seen(sizes, kv):
    row, kind = row_shape(kv, WIDTH)
    caches = [aligned((2, CONTEXT, row), kind) for _ in range(2)]
    layer = Heads(6, 2, WIDTH, WIDTH, *caches)
    q, k, v = normal(7, 90, 6 * WIDTH), normal(8, 90, 2 * WIDTH), normal(9, 90, 2 * WIDTH)
    seen = np.random.default_rng(10).integers(0, 2, (90, CONTEXT // 4)).astype(np.uint8)
    seen[np.arange(90), np.arange(90) // 4] = 1
    found, first = [], 0
    for size in sizes:
        plan, out = new_plan(size, 2), Activation(size, 6 * WIDTH)
        _ = out.values
        part = slice(first, first + size)
        given = (source(plan, values[part]) for values in (q, k, v))
        attention(plan, *given, None, layer, out, BlockMask(np.ascontiguousarray(seen[part]), 4))
        with running(plan) as go:
            go(size, first)
        found.append(out.values.copy())
        first += size
    keys, values = (rows(cache, WIDTH)[:, :90] for cache in caches)
    scores = np.einsum("thw,hpw->thp", q.reshape(90, 6, WIDTH), np.repeat(keys, 3, axis=0)) / np.sqrt(WIDTH)
    visible = np.repeat(seen, 4, axis=1)[:, :90].astype(bool) & np.tri(90, dtype=bool)
    scores = np.where(visible[:, None], scores, -np.inf)
    expected = np.einsum("thp,hpw->thw", softmax(scores), np.repeat(values, 3, axis=0)).reshape(90, -1)
    assert np.abs(np.vstack(found) - expected).max() < 1e-5


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="0 blocks of 4"):
        indexer(budget=0)
    with pytest.raises(ValueError, match="index heads of 32"):
        replace(indexer(), last_keys=np.zeros((4, 16), np.float32))
    with pytest.raises(ValueError, match="64 and 32 columns"):
        select_blocks(new_plan(1), Activation(1, 64), Activation(1, 32), ROPE, indexer())
    with pytest.raises(ValueError, match="4 index keys kept of blocks of 4, 2 tokens a step"):
        select_blocks(new_plan(2, stepwise=True), Activation(2, 96), Activation(2, 32), ROPE, indexer())
