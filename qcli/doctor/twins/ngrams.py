"""The plain twin of quant.kernels.ngrams: a whole text at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcli.doctor.twins.functions import Array, sigmoid, silu
from qcli.doctor.twins.norm import rms_norm


def rows_of(ids: Array, t: int, multipliers: Array, sizes: Array, offsets: Array, end: int) -> list[int]:
    """The rows of the n-grams that end at token t of a text, in Python's whole numbers."""
    tokens, rows = [int(ids[t])], []
    for j in range(1, len(multipliers)):
        ended = t - j < 0 or end in ids[t - j : t]
        tokens.append(end if ended else int(ids[t - j]))
        mixed = 0
        for token, multiplier in zip(tokens, multipliers, strict=False):
            mixed ^= token * int(multiplier)
        each = len(sizes) // (len(multipliers) - 1)
        rows += [mixed % int(sizes[h]) + int(offsets[h]) for h in range((j - 1) * each, j * each)]
    return rows


def gated(x: Array, key: Array, value: Array, norms: Sequence[Array], eps: float) -> Array:
    """The value of every token by how its key fits each stream: x, key [tokens, streams, n], value [tokens, n].

    norms: of the key, of the query and of what is convolved, [streams, n] each.
    """
    match = (rms_norm(key, norms[0], eps) * rms_norm(x, norms[1], eps)).sum(-1) / np.sqrt(x.shape[-1])
    gate = sigmoid(np.sqrt(np.maximum(np.abs(match), 1e-6)) * np.sign(match))
    return gate[..., None] * value[:, None]


def convolved(given: Array, norm: Array, eps: float, weight: Array, apart: int) -> Array:
    """What `gated` gave, and the convolution of its norm, whose taps are so many tokens apart.

    given [tokens, streams, n], norm [streams, n], weight [taps, streams * n].
    """
    normed = rms_norm(given, norm, eps).reshape(len(given), -1)
    padded = np.vstack([np.zeros(((len(weight) - 1) * apart, normed.shape[1])), normed])
    conv = sum(tap * padded[k * apart : k * apart + len(given)] for k, tap in enumerate(weight))
    return given + silu(conv).reshape(given.shape)
