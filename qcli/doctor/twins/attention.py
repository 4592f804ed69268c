"""The plain twin of quant.kernels.attention: the softmax over every position at once, in float64."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.functions import Array, sigmoid, softmax
from qcli.doctor.twins.norm import rms_norm
from qcli.doctor.twins.rope import rotate


def heads(
    x: Array, norm: Array | None, eps: float, angles: Array | None, interleaved: bool = False, normed_last: bool = False
) -> Array:
    """Queries or keys [tokens, heads, width], float64, normed each alone or (a norm of heads * width) together, and rotated."""

    def normed(x: Array) -> Array:
        return x if norm is None else rms_norm(x.reshape(len(x), -1, len(norm)), norm, eps).reshape(x.shape)

    def rotated(x: Array) -> Array:
        return x if angles is None else rotate(x, angles, interleaved)

    x = x.astype(np.float64)
    return normed(rotated(x)) if normed_last else rotated(normed(x))


def attend(
    queries: Array,
    k_cache: Array,
    v_cache: Array,
    gates: Array | None,
    position: int,
    *,
    sinks: Array | None = None,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    visible: Array | None = None,
) -> Array:
    """queries, gates [tokens, heads, width]; caches [key heads, context, …]; the first token stands at `position`.

    visible [tokens, context]: 0 where a token does not look, though it might.
    """
    count, total, width = queries.shape
    group = total // len(k_cache)
    k_cache, v_cache = (cache[:, : position + count].astype(np.float64) for cache in (k_cache, v_cache))
    out = np.empty((count, total, v_cache.shape[-1]))
    for t in range(count):
        end = position + t + 1
        for head in range(total):
            seen = slice(0 if window is None else max(0, end - window), end)
            keys, values = k_cache[head // group, seen], v_cache[head // group, seen]
            scores = keys @ queries[t, head] * (1 / np.sqrt(width) if scale is None else scale)
            if softcap is not None:
                scores = softcap * np.tanh(scores / softcap)
            if visible is not None:
                scores = np.where(visible[t, seen], scores, -np.inf)
            if sinks is not None:
                scores = np.append(scores, sinks[head])
            out[t, head] = softmax(scores)[: len(values)] @ values
    if gates is not None:
        out = out * sigmoid(gates.astype(np.float64))
    return out.reshape(count, -1)


def join(partial: Array, sinks: Array | None = None) -> Array:
    """What blocks of positions give together: [tokens, heads, blocks, (largest score, sum, 14 unused, sum of values)]."""
    largest, total, values = partial[..., 0], partial[..., 1], partial[..., 16:]
    lowest = np.full(partial.shape[1], -np.inf) if sinks is None else sinks
    top = np.maximum(largest.max(axis=-1), lowest)
    weights = np.exp(largest - top[..., None])
    whole = (weights * total).sum(axis=-1) + np.exp(lowest - top)
    return (weights[..., None] * values).sum(axis=-2) / whole[..., None]
