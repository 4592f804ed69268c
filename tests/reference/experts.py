"""The plain twin of quant.kernels.experts and experts_grouped."""

from __future__ import annotations

import numpy as np
from reference.activation import seen
from reference.functions import sigmoid, silu
from reference.router import choose


def gated(h, gate, up, down, kinds):
    """down(silu(gate h) * up h) of one expert, from activations as the formats see them: `kinds` of gate and of down."""
    h = seen(h, kinds[0])
    middle = silu(gate @ h) * (up @ h)
    return down @ seen(middle.astype(np.float32), kinds[1])


def experts(h, logits, weights, shared, shared_gate, k, scale, kinds):
    """What one token's x grows by, float64 [n]; weights: gate, up, down [experts, rows, columns]; shared: alike, or None."""
    total = np.zeros(len(weights[2][0]))
    for expert, factor in zip(*choose(logits, k, scale), strict=True):
        total += factor * gated(h, *(w[expert] for w in weights), kinds)
    if shared is not None:
        factor = 1 if shared_gate is None else sigmoid(np.float64(shared_gate))
        total += factor * gated(h, *shared, kinds)
    return total
