"""How many texts there is memory for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from qcli.runtime import places
from qcli.streaming import budget

GIB = 1 << 30


def engine(spare, most_tokens=8) -> Any:
    state = SimpleNamespace(n_bytes=GIB - 4 * 1024)
    return SimpleNamespace(most_tokens=most_tokens, state=state, vocab_size=1024, spare_bytes=spare)


def test_as_many_as_fit_into_what_the_engine_may_use_and_into_what_is_free(monkeypatch):
    monkeypatch.setattr(places, "process_memory", lambda: 3 * GIB)
    monkeypatch.setattr(budget, "limit", lambda ram: 8 * GIB)
    assert [places.places(engine(n * GIB), 4) for n in (0, 1, 2, 3, 4, 9)] == [1, 1, 2, 3, 4, 4]
    assert places.places(engine(9 * GIB), 32) == 5
    assert places.places(engine(2 * GIB - 1), 4) == 1
    assert places.places(engine(-GIB), 4) == 1
    assert places.places(engine(9 * GIB, most_tokens=1), 4) == 1
