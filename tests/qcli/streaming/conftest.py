"""Fixtures of streamed models: the logits of the same model in memory, and a machine whose memory other programs take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from streamed_engine import MODEL, logits_of

from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.streaming import pressure


@pytest.fixture(scope="module")
def expected():
    engine = Engine.load(GGUFFile.open(MODEL), threads=2, ctx=256, chunk=64)
    found = logits_of(engine)
    engine.close()
    return found


@pytest.fixture
def others(monkeypatch):
    """What other programs leave, in MiB, and the time."""
    now = SimpleNamespace(free=4096, time=0.0)
    monkeypatch.setattr(pressure, "available_memory", lambda: now.free << 20)
    monkeypatch.setattr(pressure, "perf_counter", lambda: now.time)
    return now
