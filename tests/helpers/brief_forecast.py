"""Forecasts of a moment, for tests that look at sums and not at speeds."""

from __future__ import annotations

from qcli.forecast import simulated_cache, timing
from qcli.streaming import usage_file


def be_brief(monkeypatch):
    """Measure for a moment only, and know of no earlier run."""
    monkeypatch.setattr(timing, "_SECONDS", 0.01)
    monkeypatch.setattr(simulated_cache, "_DISK_SECONDS", 0.005)
    monkeypatch.setattr(usage_file, "load", lambda _path: {})
