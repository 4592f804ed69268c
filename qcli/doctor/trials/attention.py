"""Attention, one token or a few at a time and many at once: every kind of cache, and every option of heads."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from qcli.doctor.trials.trial import Experiment, Trial, error, experiment, given, new_plan, normal, result
from qcli.doctor.twins import attention as twin
from qcli.doctor.twins import rope as rope_twin
from qcli.doctor.twins.functions import Array, sigmoid
from qcli.doctor.twins.kv_cache import fill, rows
from qcli.doctor.twins.norm import rms_norm
from quant.kernels.attend_tiles import attend_tiles_rows
from quant.kernels.attend_token import attend_blocks, join_blocks
from quant.kernels.attention import Heads, attention, finish_heads, norm_rope_store
from quant.kernels.block_mask import BlockMask
from quant.kernels.kv_cache import row_shape
from quant.kernels.rope import Rope, cos_sin, frequencies, rope_cos_sin, yarn
from quant.plan import aligned

_POSITION: Final = 70  # of the first token: in the second block of a cache
_CONTEXT: Final = 160
_BASE, _EPS = 10000.0, 1e-6
_STORED: Final = {"f16": 1e-3, "q8_0": 8e-3, "i16": 1e-4, "f32": 1e-5}  # a rounding border may lie beside a number
_FEW, _MANY = 3, 20
_BLOCK: Final = 8  # positions that are seen, or not, together


@dataclass(frozen=True)
class _Case:
    kv: str = "f16"
    shape: tuple[int, int, int, int] = (4, 2, 32, 32)  # query heads, key heads, width of a key, of a value
    rotary: int = 16
    interleaved: bool = False
    apart: bool = False  # gates come by themselves
    masked: bool = False
    options: dict[str, Any] = field(default_factory=dict)  # of Heads


def _uniform(*shape: int) -> Array:
    return np.random.default_rng(3).uniform(0.5, 2, shape).astype(np.float32)


_CASES: Final = (
    _Case(options={"norms": (_uniform(32), 1 / _uniform(32)), "gated": True}),
    _Case(options={"window": 40, "sinks": _uniform(4)}, interleaved=True),
    _Case(options={"norms": (_uniform(32), _uniform(32)), "normed_last": True, "v_norm": _uniform(32)}, rotary=32),
    _Case(options={"scale": 0.1}, masked=True),
    _Case("q8_0", options={"softcap": 2.0, "norms": (_uniform(128), _uniform(64))}),
    _Case("q8_0", (9, 3, 64, 32), options={"scale": 0.3, "window": 65}, apart=True),
    _Case("i16", rotary=0, options={"window": 64}),
    _Case("i16", (6, 1, 96, 64), rotary=32, interleaved=True, options={"first": 32}),  # rows of a latent space
    _Case("f32", (2, 2, 80, 48), options={"sinks": _uniform(2)}),
)


def _cos_sin(rope: Rope, angles: Array) -> Experiment:
    plan = new_plan(len(angles))
    found = cos_sin(plan, rope)
    expected = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rope.attention_factor
    return experiment(plan, lambda: error(found, expected), position=_POSITION)


def _plain_angles() -> Experiment:
    return _cos_sin(Rope(frequencies(32, _BASE)), rope_twin.angles(_POSITION + np.arange(_FEW), 32, _BASE))


def _yarn_angles() -> Experiment:
    """Frequencies for a context 4 times as long."""
    rope = Rope(yarn(frequencies(32, _BASE), _BASE, 4.0, 256), attention_factor=1.5)
    return _cos_sin(rope, np.outer(_POSITION + np.arange(_FEW), rope_twin.yarn(32, _BASE, 4.0, 256)))


def _attention(case: _Case, tokens: int) -> Experiment:
    """Tokens attend to a cache that is full of numbers, in a stepwise plan if they are few."""
    queries, keys, width, values = case.shape
    caches = []
    for seed, columns, first in ((1, width, case.options.get("first", 0)), (2, values, 0)):
        row, kind = row_shape(case.kv, columns, first)
        caches.append(aligned((keys, _CONTEXT, row), kind))
        fill(caches[-1], normal(seed, keys, _CONTEXT, columns), first)
    k_cache, v_cache = caches
    heads = Heads(*case.shape, k_cache, v_cache, eps=_EPS, **case.options)
    q = normal(3, tokens, queries * width * (2 if heads.gated else 1))
    k, v, apart = normal(4, tokens, keys * width), normal(5, tokens, keys * values), normal(6, tokens, queries * values)
    rope = Rope(frequencies(case.rotary, _BASE), interleaved=case.interleaved) if case.rotary else None
    mask = _mask(tokens) if case.masked else None
    plan, out = new_plan(tokens, stepwise=tokens == _FEW), result(tokens, queries * values)
    gates = given(apart) if case.apart else None
    attention(plan, given(q), given(k), given(v), rope, heads, out, mask, gates)
    q = q.reshape(tokens, queries, -1)
    gate = q[..., width:] if heads.gated else apart.reshape(tokens, queries, -1) if case.apart else None
    found_queries = plan.activation("query", queries * width)
    attended = plan.activation("attended", queries * values)

    def prepared() -> float:
        """Queries, and the rows of the caches that are new."""
        angles = rope_twin.angles(_POSITION + np.arange(tokens), case.rotary, _BASE) if case.rotary else None
        how = angles, case.interleaved, heads.normed_last
        norms, new = heads.norms or (None, None), slice(_POSITION, _POSITION + tokens)
        expected = twin.heads(q[..., :width], norms[0], _EPS, *how).reshape(tokens, -1)
        new_keys = twin.heads(k.reshape(tokens, keys, -1), norms[1], _EPS, *how)
        new_values = v.reshape(tokens, keys, -1)
        if heads.v_norm is not None:
            new_values = rms_norm(new_values, heads.v_norm, _EPS)
        kept = rows(heads.k_cache, width, heads.first)[:, new], rows(heads.v_cache, values)[:, new]
        wrong = [error(found_queries.values, expected)]
        for stored, given_rows in zip(kept, (new_keys, new_values), strict=True):
            wrong.append(error(stored, given_rows.swapaxes(0, 1), _STORED[case.kv]))
        return max(wrong)

    def softmax_of_all() -> Array:
        """By the twin, from the queries and the rows that are there."""
        kept = rows(heads.k_cache, width, heads.first), rows(heads.v_cache, values)
        visible = None if mask is None else np.repeat(mask.blocks, _BLOCK, axis=1)
        there = found_queries.values.reshape(tokens, queries, -1).astype(np.float64)
        return twin.attend(
            there, *kept, None, _POSITION, sinks=heads.sinks, window=heads.window or None,
            softcap=heads.softcap or None, scale=heads.score_scale, visible=visible,
        )  # fmt: skip

    def joined() -> Array:
        """What the blocks that were attended to give together."""
        blocks = heads.blocks_of(_CONTEXT)
        parts = plan.buffer("partial", (tokens * queries * blocks, values + 16), np.float32)
        each = parts.astype(np.float64).reshape(tokens, queries, blocks, -1)
        return twin.join(each, heads.sinks).reshape(tokens, -1)

    def finished() -> float:
        x = attended.values.astype(np.float64)
        return error(out.values, x if gate is None else x * sigmoid(gate.astype(np.float64)).reshape(tokens, -1))

    if plan.stepwise:
        steps = lambda: error(joined(), softmax_of_all()), lambda: error(attended.values, joined())
        return experiment(plan, prepared, *steps, finished, position=_POSITION)
    return experiment(plan, prepared, lambda: error(attended.values, softmax_of_all()), finished, position=_POSITION)


def _mask(tokens: int) -> BlockMask:
    """Each token sees itself, and some of the blocks before it."""
    blocks = np.random.default_rng(7).integers(0, 2, (tokens, _CONTEXT // _BLOCK)).astype(np.uint8)
    blocks[np.arange(tokens), (_POSITION + np.arange(tokens)) // _BLOCK] = 1
    return BlockMask(blocks, _BLOCK)


TRIALS: Final = (
    Trial((rope_cos_sin,), _plain_angles),
    Trial((rope_cos_sin,), _yarn_angles),
    *(Trial((norm_rope_store, attend_blocks, join_blocks, finish_heads), partial(_attention, c, _FEW)) for c in _CASES),
    *(Trial((norm_rope_store, attend_tiles_rows, finish_heads), partial(_attention, c, _MANY)) for c in _CASES),
)
