"""Which expert is evicted: cases to solve on paper."""

from __future__ import annotations

import numpy as np
import pytest

from qcli.streaming.slots import HALF_LIFE, Slots


def test_the_least_used_expert_is_evicted():
    slots = Slots(experts=5, slots=2)
    assert [slots.assign(3, []), slots.assign(1, [])] == [-1, -1]
    slots.count_usage(np.array([3, 1]))
    slots.count_usage(np.array([1]))
    assert slots.assign(4, [4]) == 3
    assert slots.slot_of.tolist() == [-1, 1, -1, -1, 0]
    with pytest.raises(LookupError):
        slots.assign(0, [1, 4])
    slots.release(1)
    assert slots.assign(0, [0, 4]) == -1
    assert slots.most_used(9).tolist() == [1, 3]


def test_usage_fades_by_half():
    slots = Slots(4, 2)
    slots.count_usage(np.array([0]))
    slots.count_usage(np.array([1]), np.array([HALF_LIFE]))
    usage = slots.usage
    assert usage[0] == pytest.approx(0.5, rel=1e-3)
    for _ in range(400):  # beyond what a number can hold without being scaled down
        slots.count_usage(np.array([2]), np.array([HALF_LIFE]))
    assert np.isfinite(slots.usage).all()
    assert slots.most_used(1).tolist() == [2]
    other = Slots(4, 2)
    other.usage = usage
    assert np.array_equal(other.usage, usage)
