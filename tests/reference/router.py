"""The plain twin of quant.kernels.router."""

from __future__ import annotations

import numpy as np
from reference.functions import softmax


def choose(logits, k, scale):
    """float32 [experts] -> the k chosen, best first, lower index first among equals, and their weights float64 [k]."""
    everyone = softmax(np.asarray(logits, np.float64))
    chosen = np.argsort(-np.asarray(logits), kind="stable")[:k]
    return chosen, scale * everyone[chosen] / everyone[chosen].sum()
