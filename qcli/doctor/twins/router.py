"""The plain twin of quant.kernels.router."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.functions import Array, sigmoid, softmax
from quant.kernels.router import Routing


def choose(logits: Array, routing: Routing) -> tuple[Array, Array]:
    """float32 [experts] -> the k chosen, best first, lower index first among equals, and their weights float64 [k]."""
    logits = np.asarray(logits, np.float64)
    scores = sigmoid(logits) if routing.scores == "sigmoid" else softmax(logits)
    rated = scores if routing.bias is None else scores + routing.bias
    chosen = np.argsort(-_of_best_groups(rated, routing), kind="stable")[: routing.experts_per_token]
    weights = scores[chosen]
    return chosen, routing.scale * (weights / weights.sum() if routing.normalised else weights)


def _of_best_groups(rated: Array, routing: Routing) -> Array:
    """Scores, those of groups that do not count lowered below all."""
    groups = rated.reshape(routing.groups, -1)
    totals = np.sort(groups, axis=1)[:, -routing.group_best :].sum(axis=1)
    used = np.argsort(-totals, kind="stable")[: routing.groups_used]
    kept = np.full(groups.shape, -np.inf)
    kept[used] = groups[used]
    return kept.reshape(-1)
