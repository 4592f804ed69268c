"""Experts of a prompt: read ahead, staged, never read twice, and nothing left of an interrupted prompt."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from streamed_engine import IDS, MODEL, logits_of, streamed

from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.streaming.cached_layer import CachedLayer
from qcli.streaming.prefill_loads import group_by_expert
from qcli.streaming.staging_buffer import StagingBuffer
from quant.read_queue import PAGE

STORED = 6 * PAGE  # bytes that one of the model's experts takes in memory


def test_slots_in_order_of_expert_of_a_few_tokens_at_a_time(monkeypatch):
    monkeypatch.setattr("qcli.streaming.prefill_loads.MICRO_BATCH", 2)
    chosen, slots = np.array([[2, 0], [0, 1], [1, 2]]), np.zeros(6, np.int64)
    first, second = group_by_expert(chosen, 3, slots)
    assert slots.tolist() == [1, 2, 3, 0, 4, 5]
    assert (first.tolist(), second.tolist()) == ([0, 2, 3, 4], [4, 4, 5, 6])


@pytest.mark.parametrize("likely", [0, 3, 1e9])
@pytest.mark.parametrize(("chunk", "staged"), [(3, 1), (3, 10 * STORED), (64, 10 * STORED), (64, 1 << 20)])
def test_reading_ahead_of_a_layer_changes_no_bit(monkeypatch, likely, chunk, staged):
    monkeypatch.setattr("qcli.streaming.prefill_loads.READAHEAD_CHOICES", likely)
    resident = Engine.load(GGUFFile.open(MODEL), threads=2, ctx=256, chunk=chunk)
    found, ahead = [], []
    engine = streamed(monkeypatch, 4, staged=staged, chunk=chunk)
    read = StagingBuffer.read_ahead
    monkeypatch.setattr(StagingBuffer, "read_ahead", lambda *given: ahead.append(read(*given)) or ahead[-1])
    for ids in (IDS[:100], IDS[100:]) if chunk == 64 else (IDS[:25], IDS[25:45]):
        found.append((resident.prefill(ids).copy(), engine.prefill(ids).copy()))
        found.append((resident.step(1).copy(), engine.step(1).copy()))
    assert all(np.array_equal(a, b) for a, b in found)
    assert bool(sum(ahead)) == (likely == 0 or (likely == 3 and chunk == 64))
    resident.close()
    engine.close()


@pytest.mark.parametrize("likely", [0, 3, 1e9])
@pytest.mark.parametrize("staged", [1, 10 * STORED])
def test_a_chunk_reads_no_expert_twice(monkeypatch, likely, staged):
    monkeypatch.setattr("qcli.streaming.prefill_loads.READAHEAD_CHOICES", likely)
    engine = streamed(monkeypatch, 4, staged=staged)
    spans, load = CachedLayer.spans, CachedLayer.begin_load
    offsets: list[int] = []

    def staged_spans(layer, expert, memory):
        offsets.extend(matrix.offsets[expert] for matrix in layer.matrices)
        return spans(layer, expert, memory)

    def loaded(layer, expert, pinned, urgent=True):
        request = load(layer, expert, pinned, urgent)
        offsets.extend(matrix.offsets[expert] for matrix in layer.matrices)
        return request

    monkeypatch.setattr(CachedLayer, "spans", staged_spans)
    monkeypatch.setattr(CachedLayer, "begin_load", loaded)
    for first in (0, 64):
        engine.prefill(IDS[first : first + 64])
        assert len(set(offsets)) == len(offsets) > 0
        offsets.clear()
    engine.close()


@pytest.mark.parametrize("staged", [1, 10 * STORED])
@pytest.mark.parametrize("likely", [0, 3])
def test_a_prompt_interrupted_in_any_turn_leaves_nothing_behind(monkeypatch, expected, likely, staged):
    monkeypatch.setattr("qcli.streaming.prefill_loads.READAHEAD_CHOICES", likely)
    engine = streamed(monkeypatch, 4, staged=staged, threads=1)
    replay, left = engine._team.run, [0]

    def run(records, *rest):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        replay(records, *rest)

    monkeypatch.setattr(engine._team, "run", run)
    whole = engine.prefill(IDS[:16]).copy()
    stop = 1
    while left[0] <= 0:  # until there are no more turns to be interrupted
        engine.reset()
        left[0] = stop
        with suppress(KeyboardInterrupt):
            engine.prefill(IDS[:16])
        stop += 1
        if left[0] == 0:
            engine.reset()
            assert np.array_equal(engine.prefill(IDS[:16]), whole)
    assert stop > 12
    left[0] = 0
    engine.reset()
    assert all(np.array_equal(a, b) for a, b in zip(logits_of(engine), expected, strict=True))
    engine.close()
