"""The plain twin of quant.kernels.sample: forbid, sort everything, keep prefixes, draw."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.functions import Array


def forbidden(logits: Array, mask: Array) -> Array:
    """The logits that a mask leaves, -inf in place of the others.  float32 [V], int64 [words] -> float32 [V]."""
    allowed = np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(logits)]
    return np.where(allowed, logits, -np.inf).astype(np.float32)


def kept(logits: Array, top_k: int, top_p: float, min_p: float) -> tuple[Array, Array]:
    """The ids that pass the filters, most probable first, and their logits.  [V] -> int [n], float64 [n]."""
    order = np.lexsort((np.arange(len(logits)), -logits))
    if 0 < top_k < len(logits):
        order = order[:top_k]
    values = logits[order].astype(np.float64)
    weights = np.exp(values - values[0])
    if top_p < 1:
        mass = np.cumsum(weights)
        order = order[: int(np.argmax(mass >= min(top_p, 1) * mass[-1])) + 1]
    if min_p > 0:
        order = order[values[: len(order)] >= values[0] + np.log(min_p)]
    return order, logits[order].astype(np.float64)


def draw_token(logits: Array, top_k: int, top_p: float, min_p: float, temperature: float, uniform: float) -> int:
    """One id, as quant.kernels.sample.draw_token draws it."""
    order, values = kept(logits, top_k, top_p, min_p)
    weights = np.exp((values - values[0]) / temperature)
    mass = np.cumsum(weights)
    passed = mass > uniform * mass[-1]
    return int(order[np.argmax(passed)]) if passed.any() else int(order[np.flatnonzero(weights)[-1]])
