"""Which expert leaves a layer's cache, in plain Python."""

from __future__ import annotations

import numpy as np

FREE = -1


def count_usage(usage, weight, experts, times, growth):
    """float32 usage [experts] after a choice, and what the next choice weighs."""
    usage = usage.copy()
    for expert, count in zip(experts, times, strict=True):
        usage[expert] += np.float32(weight) * np.float32(count)
    weight = np.float32(weight) * np.float32(growth)
    return (usage / weight, np.float32(1)) if weight > 1e15 else (usage, weight)


def find_slot(expert_in, usage, kept):
    """The first free slot, else that of the least used expert not in `kept`; -1 if there is none."""
    if FREE in expert_in:
        return list(expert_in).index(FREE)
    candidates = [(usage[expert], slot) for slot, expert in enumerate(expert_in) if expert >= 0 and expert not in kept]
    return min(candidates)[1] if candidates else -1
