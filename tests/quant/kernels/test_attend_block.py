"""Tokens of a step that attend to the same positions do it together: every one gets the bits that it gets alone."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import replay

from quant.attention_tile import ROWS
from quant.batch import Batch, Slots
from quant.kernels.attend_block import padded, tokens_at_a_time
from quant.kernels.attention import Heads, attention
from quant.kernels.block_mask import BlockMask
from quant.kernels.kv_cache import row_shape
from quant.plan import Activation, Plan, aligned
from quant.team import Team

CONTEXT, MASKED = 320, 8
# Query heads, key heads, width of a key, of a value: groups of less than a tile, of a tile, of no whole number of tiles, and of
# more than fit beside another token's; columns of values that are no whole number of tiles.
SHAPES = [(3, 3, 32, 32), (9, 3, 64, 64), (4, 1, 48, 80), (10, 2, 32, 48), (40, 1, 96, 64), (72, 1, 32, 32)]


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def caches(shape, kv, first=0, texts=()):
    """Caches full of random rows, which are written as tokens are."""
    _, keys, width, values = shape
    made = []
    for columns, seed, apart in ((width, 1, first), (values, 2, 0)):
        row, kind = row_shape(kv, columns, apart)
        made.append(aligned((*texts, keys, CONTEXT, row), kind))
        if kv == "i16":
            made[-1][:] = np.random.default_rng(seed).integers(-9999, 9999, made[-1].shape)
            made[-1][..., columns:].view(np.float32)[:] = 1e-4
        elif kv == "q8_0":
            made[-1].view(np.int8)[:] = np.random.default_rng(seed).integers(-99, 99, made[-1].shape)
            made[-1][..., columns:].view(np.float32)[:] = 1e-2
        else:
            made[-1][:] = normal(seed, *made[-1].shape)
    return made


def heads_of(shape, caches, **options):
    return Heads(*shape, *caches, **options)


def attended(heads, q, position, threads=1, mask=None):
    """A step of the tokens of q, of one text; what is in the caches already is attended to."""
    plan = Plan(len(q), threads, Batch(), stepwise=True)
    given, out = Activation(*q.shape), Activation(len(q), heads.query_heads * heads.value_dim)
    given.values[:], _ = q, out.values
    attention(plan, given, None, None, None, heads, out, None if mask is None else BlockMask(mask, MASKED))
    replay(plan, position=position)
    return out.values.copy()


def check(heads, tokens, position, mask=None):
    """Bits are those of tokens one by one, whatever the number of threads."""
    q = normal(3, tokens, heads.query_heads * heads.head_dim)
    masks = [None if mask is None else mask[t : t + 1] for t in range(tokens)]
    alone = [attended(heads, q[t : t + 1], position + t, mask=masks[t]) for t in range(tokens)]
    for threads in (1, 3):
        assert np.array_equal(attended(heads, q, position, threads, mask), np.concatenate(alone))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tokens", [2, 8])
def test_as_each_alone(shape, tokens):
    heads = heads_of(shape, caches(shape, "f16"))
    for position in (0, 60, 127, 250):
        check(heads, tokens, position)


@pytest.mark.parametrize("kv", ["q8_0", "i16", "f32"])
@pytest.mark.parametrize("shape", [(2, 2, 32, 32), (9, 3, 64, 96)])
def test_kinds_of_caches(shape, kv):
    check(heads_of(shape, caches(shape, kv)), 5, 150)
    check(heads_of(shape, caches(shape, kv), softcap=3.0, sinks=normal(4, shape[0])), 5, 62)


@pytest.mark.parametrize("queries", [4, 12])
def test_first_columns_with_a_scale_of_their_own(queries):
    shape = queries, 1, 96, 64
    k_cache, v_cache = caches(shape, "i16", first=32)
    k_cache[..., -2:].view(np.float32)[:] = 3e-4
    check(heads_of(shape, (k_cache, v_cache), first=32), 4, 190)


@pytest.mark.parametrize("window", [1, 7, 64, 100])
def test_windows_begin_where_each_tokens_does(window):
    shape = 6, 2, 32, 32
    heads = heads_of(shape, caches(shape, "f16"), window=window)
    for position in (60, 125, 200):
        check(heads, 8, position)


def test_masked_tokens_see_their_own_blocks():
    shape = 6, 1, 32, 32
    mask = np.random.default_rng(5).integers(0, 2, (4, CONTEXT // MASKED)).astype(np.uint8)
    mask[:, 200 // MASKED :] = 1
    check(heads_of(shape, caches(shape, "f16")), 4, 200, mask)


def test_tokens_of_several_texts_at_the_same_position():
    """Their positions are alike, their keys are not; two of them are of one text."""
    shape, slots = (9, 3, 64, 64), Slots()
    one, several = caches(shape, "f16"), caches(shape, "f16", texts=(3,))
    for array, all_of_them in zip(one, several, strict=True):
        slots.add(array, all_of_them)
    batch, texts, positions = Batch(texts=4), [2, 0, 0, 1], [150, 150, 151, 150]
    plan, out = Plan(4, 2, batch, stepwise=True, slots=slots), Activation(4, 576)
    q, given = normal(3, 4, 576), Activation(4, 576)
    given.values[:], _ = q, out.values
    attention(plan, given, None, None, None, heads_of(shape, one), out)
    batch.set_texts(texts, positions)
    replay_as_set(plan)
    for t, (text, position) in enumerate(zip(texts, positions, strict=True)):
        heads = heads_of(shape, [aligned_copy(cache[text]) for cache in several])
        assert np.array_equal(out.values[t : t + 1], attended(heads, q[t : t + 1], position))


def aligned_copy(array):
    made = aligned(array.shape, array.dtype)
    made[:] = array
    return made


def replay_as_set(plan):
    team = Team(plan.threads)
    team.run(plan.compile())
    team.close()


def test_values_that_are_no_numbers_stay_with_who_sees_them():
    """What a guess leaves in the caches does not reach tokens before it."""
    shape = 4, 2, 32, 32
    k_cache, v_cache = caches(shape, "f16")
    heads, q = heads_of(shape, (k_cache, v_cache)), normal(3, 3, 128)
    expected = attended(heads, q, 100)
    k_cache[:, 102], v_cache[:, 102] = np.inf, np.nan
    found = attended(heads, q, 100)
    assert np.array_equal(found[:2], expected[:2])
    assert np.isnan(found[2]).any()


def test_how_many_do_it_together():
    assert [tokens_at_a_time(group) for group in (1, 3, 8, 64, 128)] == [64, 21, 8, 1, 1]
    assert [padded(count) for count in (1, ROWS, ROWS + 1)] == [ROWS, ROWS, 2 * ROWS]
