"""The plain twin of quant.kernels.experts and experts_grouped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from qcli.doctor.twins.activation import seen
from qcli.doctor.twins.functions import Array, gelu, sigmoid, silu
from qcli.doctor.twins.router import choose
from quant.kernels.router import Routing

Parts = tuple[Sequence[Array], Sequence[Array]]  # weights of gate, up and down, and their biases


def clamped(gate: Array, up: Array) -> Array:
    """What gpt-oss has between its matrices."""
    gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
    return gate * sigmoid(1.702 * gate) * (up + 1)


GATES: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "silu": lambda gate, up: silu(gate) * up,
    "gelu": lambda gate, up: gelu(gate) * up,
    "clamped": clamped,
    "relu2": lambda gate, up: np.maximum(up, 0) ** 2,  # whatever the gate
}


def middle(h: Array, weights: Sequence[Array], biases: Sequence[Array], kind: str, activation: str) -> Array:
    """f(gate h) * up h of one expert, from h [columns] as the format of gate and up sees it."""
    gate, up = (part @ seen(h, kind) + bias for part, bias in zip(weights[:2], biases[:2], strict=True))
    return GATES[activation](gate, up)


def gated(
    h: Array, weights: Sequence[Array], biases: Sequence[Array], kinds: tuple[str, str], activation: str
) -> Array:
    """down(f(gate h) * up h) of one expert, from activations as the formats see them: `kinds` of gate and of down."""
    between = middle(h, weights, biases, kinds[0], activation)
    return weights[2] @ seen(between.astype(np.float32), kinds[1]) + biases[2]


def experts(
    h: Array,
    logits: Array,
    routed: Parts,
    shared: Parts | None,
    shared_gate: Array,
    routing: Routing,
    kinds: tuple[str, str],
    activation: str = "silu",
) -> Array:
    """What one token's x grows by, float64 [n].

    routed: weights (gate, up, down), each [experts, rows, columns], and biases, [experts, rows] or 0s; shared: alike for
    one expert, or None.
    """
    total = np.zeros(len(routed[0][2][0]))
    for expert, factor in zip(*choose(logits, routing), strict=True):
        weights, biases = ([part[expert] for part in parts] for parts in routed)
        total += factor * gated(h, weights, biases, kinds, activation)
    if shared is not None:
        factor = 1 if shared_gate is None else sigmoid(np.float64(shared_gate))
        total += factor * gated(h, *shared, kinds, activation)
    return total
