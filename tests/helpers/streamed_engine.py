"""A streamed engine of a small model, with any number of slots, and the logits that it must compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from places import DATA

from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.streaming import budget, usage_file

MODEL = DATA / "qwen3next.gguf"
IDS = [int(id) for id in np.random.default_rng(5).integers(0, 200, 150)]


def streamed(
    monkeypatch,
    slots: int,
    path: Path = MODEL,
    usage_path: Path | None = None,
    staged: int = 1,
    chunk: int = 64,
    threads: int = 2,
    spare: int = 1 << 30,
) -> Engine:
    """An engine that has so many slots in each layer, and `staged` bytes of staging memory, but room for two experts.

    spare: bytes that it may use beside them. Whatever is loaded from then on is streamed likewise.
    """
    stream_all(monkeypatch, slots, usage_path, staged, spare)
    return Engine.load(GGUFFile.open(path), threads=threads, ctx=256, chunk=chunk)


def stream_all(monkeypatch, slots: int, usage_path: Path | None = None, staged: int = 1, spare: int = 1 << 30) -> None:
    """Have whatever is loaded from now on streamed as `streamed` tells."""

    def allocate(loader, *_):
        loader.allocate(slots)
        return spare

    monkeypatch.setattr("qcli.streaming.prefill_loads.STAGING_BYTES", staged)
    monkeypatch.setattr(usage_file, "path_for", lambda _file: usage_path)
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    monkeypatch.setattr(budget, "allocate_slots", allocate)


def logits_of(engine: Engine) -> list[np.ndarray]:
    """Of a prompt of several chunks, of steps after it, and of a second, shorter text."""
    found = [engine.prefill(IDS[:100]).copy(), *(engine.step(id).copy() for id in IDS[100:])]
    engine.reset()
    return [*found, engine.prefill(IDS[:3]).copy(), engine.step(7).copy()]
