"""Memory that other programs take and return: slots go back in time, and no bit depends on it."""

from __future__ import annotations

import numpy as np
import pytest
from streamed_engine import IDS, streamed

from qcli.errors import QcliError
from qcli.runtime.checkpoint import Marks
from qcli.runtime.prefix_cache import PrefixCache
from qcli.streaming import pressure
from quant.read_queue import PAGE

STORED = 6 * PAGE  # bytes that one expert takes in memory


def looked(others, pressed, free, slots, used):
    others.free = free
    others.time += 1
    assert pressed.due
    slots = pressed.slots_for(slots, used)
    assert not pressed.due
    return slots


def test_slots_are_given_back_in_time_and_return_one_by_one(others):
    pressed = pressure.MemoryPressure(100, 10, 16 << 20)
    assert looked(others, pressed, 256, slots=100, used=100) == 100
    assert looked(others, pressed, 255, slots=100, used=100) == 95  # back to 320 MiB: 65 / 16
    assert looked(others, pressed, 200, slots=95, used=60) == 52  # empty ones held no memory
    assert looked(others, pressed, 100, slots=52, used=12) == 10
    assert looked(others, pressed, 100, slots=10, used=10) == 10
    with pytest.raises(QcliError, match="memory is short") as caught:
        looked(others, pressed, 63, slots=10, used=10)
    assert "--ram" in caught.value.hint
    assert [looked(others, pressed, 1000, slots=10, used=10) for _ in range(10)] == 9 * [10] + [23]
    assert [looked(others, pressed, 480, slots=23, used=17) for _ in range(20)] == 20 * [
        23
    ]  # room for 6, and 6 are empty
    assert [looked(others, pressed, 4096, slots=95, used=95) for _ in range(10)] == 9 * [95] + [100]


def test_memory_that_others_need_is_given_back_and_no_bit_changes(monkeypatch, expected, others):
    engine = streamed(monkeypatch, 12)
    layers = list(engine.expert_loader.layers.values())

    def free(mib):
        others.free, others.time = mib, others.time + 11
        return mib

    found = [engine.prefill(IDS[:100]).copy()]
    assert [layer.slots.available for layer in layers] == [12] * len(layers)
    free(255)
    said = f"{engine.expert_loader.experts_per_token} of 12 expert slots in each layer stay in use"
    with pytest.warns(RuntimeWarning, match=said):
        found.append(engine.step(IDS[100]).copy())
    assert [layer.slots.available for layer in layers] == [engine.expert_loader.experts_per_token] * len(layers)
    for layer in layers:
        closed = layer._memory.reshape(12, -1)[layer.slots.expert_in == -2]
        assert len(closed) == 12 - engine.expert_loader.experts_per_token
        assert not closed.any()  # the system's again
        assert (
            sum(layer.is_loaded(expert) for expert in range(layer.expert_count))
            <= engine.expert_loader.experts_per_token
        )
    found += [engine.step(id).copy() for id in IDS[101:110]]
    found += [engine.step(id).copy() for id in IDS[110:120] if free(4096)]
    assert [layer.slots.available for layer in layers] == [12] * len(layers)
    found += [engine.step(id).copy() for i, id in enumerate(IDS[120:]) if free(100 if i % 3 else 4096)]
    engine.reset()
    others.time += 1
    found.append(engine.prefill(IDS[:3]).copy())
    found.append(engine.step(7).copy())
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    free(10)
    with pytest.raises(QcliError, match="memory is short"):
        engine.prefill(IDS[:64])
    engine.close()


def test_checkpoints_are_given_up_before_slots(monkeypatch, others):
    cache = PrefixCache(engine := streamed(monkeypatch, 12, chunk=32))
    cache.prefill(IDS[:40], marks=Marks(frozenset({32, 40})))
    assert len(cache.kept.checkpoints) == 2
    others.free, others.time = 255, others.time + 11
    cache.step(IDS[40])
    assert cache.kept.checkpoints == []
    assert {layer.slots.available for layer in engine.expert_loader.layers.values()} == {12}
    cache.prefill(IDS[:40])
    assert cache.prefilled == 40
    engine.close()


@pytest.mark.parametrize("likely", [0, 3])
@pytest.mark.filterwarnings("ignore:memory is short")
def test_memory_that_comes_and_goes_within_a_prompt_changes_no_bit(monkeypatch, expected, others, likely):
    monkeypatch.setattr("qcli.streaming.prefill_loads.READAHEAD_CHOICES", likely)
    engine = streamed(monkeypatch, 12, staged=10 * STORED)
    looks = np.random.default_rng(0)
    seen: set[int] = set()

    def free():
        others.time += 6
        seen.update(layer.slots.available for layer in engine.expert_loader.layers.values())
        return int(looks.choice([100, 4096])) << 20

    monkeypatch.setattr(pressure, "available_memory", free)
    for _ in range(3):
        assert np.array_equal(engine.prefill(IDS[:100]), expected[0])
        engine.reset()
    assert {engine.expert_loader.experts_per_token, 12} < seen
    engine.close()
