"""The plain twin of quant.kernels.attention: the softmax over every position at once, in float64."""

from __future__ import annotations

import numpy as np
from reference.functions import sigmoid, softmax
from reference.norm import rms_norm
from reference.rope import rotate


def heads(x, norm, eps, angles):
    """Queries or keys [tokens, heads, width], normed and turned, float64."""
    return rotate(rms_norm(x, norm, eps), angles)


def attend(queries, k_cache, v_cache, gates, position):
    """queries, gates [tokens, heads, width]; caches [key heads, context, width]; the first token stands at `position`."""
    count, total, width = queries.shape
    group = total // len(k_cache)
    out = np.empty((count, total, width))
    for t in range(count):
        for head in range(total):
            keys, values = (cache[head // group, : position + t + 1].astype(np.float64) for cache in (k_cache, v_cache))
            out[t, head] = softmax(keys @ queries[t, head] / np.sqrt(width)) @ values
    return (out * sigmoid(gates.astype(np.float64))).reshape(count, -1)
