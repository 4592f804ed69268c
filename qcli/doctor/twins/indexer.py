"""The plain twin of quant.kernels.indexer: every token of a text scores the complete blocks before it."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.functions import Array
from qcli.doctor.twins.norm import rms_norm
from qcli.doctor.twins.rope import rotate


def block_keys(k: Array, norm: Array, eps: float, angles: Array, block: int) -> Array:
    """k [tokens, width] -> the keys of whole blocks, [blocks, width]; angles [tokens, pairs]."""
    means = k[: len(k) // block * block].astype(np.float64).reshape(-1, block, k.shape[1]).mean(axis=1)
    return rotate(rms_norm(means, norm, eps)[:, None], angles[::block][: len(means)])[:, 0]


def block_mask(queries: Array, keys: Array, block_size: int, top_k: int) -> Array:
    """queries [tokens, heads, width], normed and rotated, keys [blocks, width] -> uint8 [tokens, blocks and one]."""
    scores = np.maximum(queries @ keys.T, 0).sum(axis=1)
    seen = np.zeros((len(queries), len(keys) + 1), np.uint8)
    for t in range(len(queries)):
        whole = (t + 1) // block_size
        seen[t, np.argsort(-scores[t, :whole], kind="stable")[:top_k]] = 1
        seen[t, whole] = 1
    return seen
