"""Which expert leaves a layer's cache, in plain Python."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from qcli.doctor.twins.functions import Array

FREE = -1


def count_usage(
    usage: Array, weight: Array, experts: Iterable[int], times: Iterable[int], growth: Array
) -> tuple[Array, Array]:
    """float32 usage [experts] after a choice, and what the next choice weighs."""
    usage = usage.copy()
    for expert, count in zip(experts, times, strict=True):
        usage[expert] += np.float32(weight) * np.float32(count)
    weight = np.float32(weight) * np.float32(growth)
    return (usage / weight, np.float32(1)) if weight > 1e15 else (usage, weight)


def find_slot(expert_in: Array, usage: Array, kept: Collection[int]) -> int:
    """The first free slot, else that of the least used expert not in `kept`; -1 if there is none."""
    if FREE in expert_in:
        return list(expert_in).index(FREE)
    candidates = [(usage[expert], slot) for slot, expert in enumerate(expert_in) if expert >= 0 and expert not in kept]
    return min(candidates)[1] if candidates else -1
