"""Prefetching: the quicker way is kept, and no bit depends on it."""

from __future__ import annotations

import numpy as np
from streamed_engine import logits_of, streamed

from qcli.streaming.prefetch import PrefetchTrial


def test_the_quicker_way_is_kept():
    trial = PrefetchTrial()
    ways = []
    for _ in range(600):
        ways.append(trial.enabled)
        trial.record(0.5 if trial.enabled else 1.0)
    assert ways[:32] == 16 * [False] + 16 * [True]
    assert all(ways[32:512])
    assert ways[512:544] == ways[:32]


def test_prefetching_changes_no_bit(monkeypatch, expected):
    monkeypatch.setattr(PrefetchTrial, "enabled", True)
    engine = streamed(monkeypatch, 5)
    found = logits_of(engine)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    engine.close()
