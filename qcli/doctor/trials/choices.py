"""What is chosen: experts by routers, blocks of positions by an indexer, tokens by samplers, rows of n-grams by hashing."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from qcli.doctor.trials.trial import (
    TOKENS,
    Experiment,
    Trial,
    error,
    experiment,
    given,
    new_plan,
    normal,
    replay,
    result,
    unlike,
)
from qcli.doctor.twins import indexer as indexer_twin
from qcli.doctor.twins import ngrams as ngrams_twin
from qcli.doctor.twins import sample as sample_twin
from qcli.doctor.twins.attention import heads
from qcli.doctor.twins.functions import Array
from qcli.doctor.twins.kv_cache import rows
from qcli.doctor.twins.rope import angles as rope_angles
from qcli.doctor.twins.router import choose
from quant.formats import find
from quant.jit import Kernel
from quant.kernels.indexer import Indexer, index_keys
from quant.kernels.ngrams import (
    Hashing,
    add_ngrams,
    convolve_ngrams,
    embed_ngrams,
    gate_ngrams,
    hash_tokens,
)
from quant.kernels.rope import Rope, frequencies
from quant.kernels.router import Routing, route_rows, routing_scratch_bytes
from quant.kernels.sample import BLOCK, draw_token, forbid, highest
from quant.kernels.select_blocks import index_queries, score_blocks, select_blocks, select_top_blocks
from quant.plan import aligned
from quant.weights import Matrix

_EPS: Final = 1e-6
_EXPERTS: Final = 60
_BIAS: Final = np.linspace(-0.1, 0.1, _EXPERTS, dtype=np.float32)
_ROUTINGS: Final = (
    Routing(6),
    Routing(6, normalised=False, scale=2.0),
    Routing(6, "sigmoid"),
    Routing(6, "sigmoid", True, 2.5, _BIAS, groups=4, groups_used=2, group_best=2),
    Routing(6, "softmax", False, 1.5, None, groups=6, groups_used=3),
    Routing(6, expert_scales=1 + _BIAS),
)


def _routing(routing: Routing) -> Experiment:
    logits, shape = 2 * normal(1, TOKENS, _EXPERTS), (TOKENS, routing.experts_per_token)
    plan, experts, weights = new_plan(TOKENS), aligned(shape, np.int64), aligned(shape, np.float32)
    rows_of_logits = given(logits)
    order = rows_of_logits.read("f32"), rows_of_logits.stride("f32"), routing.table(plan, _EXPERTS), experts, weights
    plan.add(route_rows, *order, plan.batch, *plan.scratch(routing_scratch_bytes(_EXPERTS)))
    expected = [choose(row, routing) for row in logits]
    scales = np.ones(_EXPERTS) if routing.expert_scales is None else routing.expert_scales

    def wrong() -> float:
        factors = [values * scales[chosen] for chosen, values in expected]
        return max(unlike(experts, [chosen for chosen, _ in expected]), error(weights, factors))

    return experiment(plan, wrong)


def _indexer(stepwise: bool) -> Experiment:
    """The last tokens of a text of 90, whose blocks of 4 before them are in the cache, and two tokens of the next one.

    A step may find more of them to be wrong than are in a block.
    """
    width, block, count, first, tokens, top = 32, 4, 3, 82, 8, 5
    norms = normal(0, width), normal(1, width)
    q, k, rope = normal(2, tokens, count * width), normal(3, first + tokens, width), Rope(frequencies(16, 1e4))
    turned = rope_angles(np.arange(first + tokens), 16, 1e4)
    keys, cache = indexer_twin.block_keys(k, norms[1], _EPS, turned, block), aligned((1, 64, width), np.float32)
    cache[0, : first // block] = keys[: first // block]
    last_keys = aligned((block + tokens - 1 if stepwise else block, width), np.float32)
    kept, at = len(last_keys), np.arange(first + tokens)
    last_keys[at[:first][-kept:] % kept] = k[:first][-kept:]
    x = Indexer(count, width, block, top, norms, _EPS, cache, last_keys)
    plan, queries = new_plan(tokens, stepwise=stepwise), given(q)
    mask = select_blocks(plan, queries, given(k[first:]), rope, x)
    scores = plan.buffer("index scores", (tokens, x.blocks), np.float32)
    complete = [(first + t + 1) // block for t in range(tokens)]

    def scored() -> float:
        there, kept = queries.values.reshape(tokens, count, width).astype(np.float64), rows(cache, width)[0]
        expected = np.maximum(there @ kept.T, 0).sum(axis=1)
        return max(error(scores[t, :n], expected[t, :n], 1e-5) for t, n in enumerate(complete))

    def selected() -> float:
        wrong = []
        for t, n in enumerate(complete):
            best = np.argsort(-scores[t, :n], kind="stable")[:top]
            wrong.append(unlike(mask.blocks[t, : n + 1], np.isin(np.arange(n + 1), [*best, n])))
        return max(wrong)

    return experiment(
        plan,
        lambda: max(error(rows(cache, width)[0, : len(keys)], keys), unlike(last_keys[at[-kept:] % kept], k[-kept:])),
        lambda: error(queries.values.reshape(tokens, count, -1),
                      heads(q.reshape(tokens, count, -1), norms[0], _EPS, turned[first:])),
        scored,
        selected,
        position=first,
    )  # fmt: skip


def _hashing(tokens: int, stepwise: bool) -> Experiment:
    """The last tokens of a text with an end in it, and what is kept of them."""
    ids, end = np.array([5, 9, 2, 7, 3, 2, 8, 1, 4, 6, 11, 3], np.int64), 2
    first, table = len(ids) - tokens, normal(1, 40, 16)
    before = aligned((2 + tokens - 1 if stepwise else 2, 1), np.float32)
    kept, at = len(before), np.arange(len(ids))
    before[at[:first][-kept:] % kept, 0] = ids[:first][-kept:]
    how = np.array([3, 1000003, 77]), np.array([7, 11, 13, 9]), np.array([0, 7, 18, 31])
    plan, out, last = new_plan(tokens, stepwise=stepwise), result(tokens, 64), ids[first:].copy()
    embed_ngrams(plan, last, Hashing(end, *how, before), Matrix(table.view(np.uint8), find("F32"), 16), out)
    expected = np.array([ngrams_twin.rows_of(ids, t, *how, end) for t in range(first, len(ids))])
    found = plan.buffer("n-gram rows", tokens * 4, np.int64)

    def hashed() -> float:
        return max(unlike(found, expected.reshape(-1)), unlike(before[at[-kept:] % kept, 0], ids[-kept:]))

    return experiment(plan, hashed, position=first)


def _ngrams(stepwise: bool) -> Experiment:
    """A text of 9 tokens, the last of which come after the others."""
    streams, n, taps, apart, count, first = 2, 32, 3, 3, 9, 6
    x, key = normal(1, count, streams * n), normal(2, count, streams * n)
    value, norms, conv = (
        normal(3, count, n),
        [normal(4 + i, streams, n) for i in range(3)],
        normal(7, taps, streams * n),
    )
    parts = [part.astype(np.float64).reshape(count, streams, n) for part in (x, key)]
    few = count - first
    kept = (taps - 1) * apart + (few - 1 if stepwise else 0)
    state, rows_of_x = aligned((kept, streams * n), np.float32), [given(x[:first]), given(x[first:])]
    plans = [new_plan(first), new_plan(few, stepwise=stepwise)]
    for plan, to, part in zip(plans, rows_of_x, (slice(first), slice(first, None)), strict=True):
        add_ngrams(plan, given(key[part]), given(value[part]), tuple(norms), _EPS, conv, apart, state, to)

    def errors() -> list[float]:
        replay(plans[0])
        replay(plans[1], first)
        there = [plan.activation("n-grams gated", streams * n).values for plan in plans]
        gated = np.vstack(there).astype(np.float64).reshape(count, streams, n)
        added = ngrams_twin.convolved(gated, norms[2], _EPS, conv, apart)
        found = np.vstack([part.values for part in rows_of_x])
        expected = ngrams_twin.gated(parts[0], parts[1], value, norms, _EPS)
        return [error(gated, expected), error(found, (parts[0] + added).reshape(count, -1))]

    return Experiment((*plans[0].kernels, *plans[1].kernels), errors)


def _logits() -> Array:
    """float32 [blocks, BLOCK], some of them equal, the last ones no token's."""
    logits = aligned((6, BLOCK), np.float32)
    logits.reshape(-1)[:] = np.round(4 * normal(1, logits.size), 1)
    logits[-1, -9:] = -np.inf
    return logits


def _forbidding() -> Experiment:
    logits = _logits()
    mask = np.random.default_rng(2).integers(-(2**63), 2**63 - 1, len(logits))
    mask[:2] = 0, -1
    expected = sample_twin.forbidden(logits.reshape(-1), mask)

    def errors() -> list[float]:
        forbid(logits.ctypes.data, len(logits), mask.ctypes.data)
        return [unlike(logits.reshape(-1), expected)]

    return Experiment((forbid,), errors)


def _highest() -> Experiment:
    logits, heap = _logits(), np.zeros(6 * BLOCK, np.int64)

    def errors() -> list[float]:
        highest(logits.ctypes.data, len(logits), heap.ctypes.data, 100)
        return [unlike(heap[:100], sample_twin.kept(logits.reshape(-1), 100, 1.0, 0.0)[0])]

    return Experiment((highest,), errors)


_FILTERS: Final = ((40, 0.9, 0.0, 0.8), (0, 0.95, 0.05, 1.0), (0, 1.0, 0.0, 2.0))  # top-k, top-p, min-p, temperature


def _drawing() -> Experiment:
    logits, heap = _logits(), np.zeros(6 * BLOCK, np.int64)
    peak = float(logits.max())

    def errors() -> list[float]:
        wrong = []
        for how in _FILTERS:
            for uniform in (0.01, 0.4, 0.83, 0.97):
                place = highest.address, logits.ctypes.data, len(logits), heap.ctypes.data, peak
                token = draw_token(*place, *how, uniform)
                wrong.append(unlike(token, sample_twin.draw_token(logits.reshape(-1), *how, uniform)))
        return [max(wrong)]

    return Experiment((draw_token, highest), errors)


_INDEXED: Final[tuple[Kernel, ...]] = (index_keys, index_queries, score_blocks, select_top_blocks)
TRIALS: Final = (
    *(Trial((route_rows,), partial(_routing, routing)) for routing in _ROUTINGS),
    *(Trial(_INDEXED, partial(_indexer, stepwise)) for stepwise in (False, True)),
    *(Trial((hash_tokens,), partial(_hashing, *how)) for how in ((1, True), (5, False), (5, True))),
    *(Trial((gate_ngrams, convolve_ngrams), partial(_ngrams, stepwise)) for stepwise in (False, True)),
    Trial((forbid,), _forbidding),
    Trial((highest,), _highest),
    Trial((draw_token,), _drawing),
)
