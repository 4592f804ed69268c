"""Which expert is evicted: cases to solve on paper."""

from __future__ import annotations

import numpy as np
import pytest

from qcli.doctor.twins import slots as twin
from qcli.streaming.slots import HALF_LIFE, Slots, growth


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


def test_random_choices_leave_what_the_twin_leaves():
    rng = np.random.default_rng(0)
    slots, usage, weight = Slots(12, 5), np.zeros(12, np.float32), np.float32(1)
    for _ in range(200):
        chosen, times = rng.permutation(12)[:3], rng.integers(1, 9000, 3)
        usage, weight = twin.count_usage(usage, weight, chosen, times, growth(times.sum()))
        slots.count_usage(chosen, times)
        np.testing.assert_allclose(slots.usage, usage / weight, rtol=1e-6)
        slots.loading[:] = rng.random(12) < 0.2
        kept = {*chosen.tolist(), *np.flatnonzero(slots.loading).tolist()}
        for expert in chosen.tolist():
            before = slots.expert_in.tolist()
            wanted = before.index(expert) if expert in before else twin.find_slot(before, slots.usage, kept)
            if wanted < 0:
                with pytest.raises(LookupError):
                    slots.assign(expert, chosen)
                continue
            assert slots.assign(expert, chosen) == (before[wanted] if before[wanted] != expert else -1)
            assert slots.slot_of[expert] == wanted
            assert slots.expert_in[wanted] == expert
