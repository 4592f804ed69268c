"""Models larger than memory: the same bits as in memory, from a few slots, and honest ends when the file is gone."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import reference_models
from scripted_reads import answer
from streamed_engine import IDS, MODEL, logits_of, streamed

from qcli.errors import ModelFileError
from qcli.gguf.file import GGUFFile
from qcli.host import memory
from qcli.runtime.engine import Engine
from qcli.streaming import budget


@pytest.mark.parametrize("more", [0, 1, 3, 1000])
def test_streamed_logits_have_the_same_bits(monkeypatch, expected, more):
    least = GGUFFile.open(MODEL).get_int("qwen3next.expert_used_count")
    engine = streamed(monkeypatch, least + more)
    found = logits_of(engine)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    traffic = engine.expert_loader.traffic
    assert traffic.bytes_read > 0
    assert traffic.hits + traffic.misses == 51 * least * len(engine.expert_loader.layers)
    if more == 1000:
        assert traffic.misses == 0
    engine.close()


def test_a_router_that_sees_something_else_than_the_experts(monkeypatch, tmp_path):
    """Gemma 4's: streamed from a few slots, with what is predicted of the next layer, it gives the same bits."""
    path = reference_models.read("gemma4").write(tmp_path / "model.gguf")
    resident = Engine.load(GGUFFile.open(path), threads=1, ctx=256, chunk=64)
    expected = logits_of(resident)
    resident.close()
    engine = streamed(monkeypatch, 4, path)
    assert all(np.array_equal(a, b) for a, b in zip(logits_of(engine), expected, strict=True))
    assert engine.expert_loader.traffic.bytes_read > 0
    engine.close()


def test_no_bit_depends_on_how_files_are_read(monkeypatch, expected):
    monkeypatch.delattr(os, "preadv")
    engine = streamed(monkeypatch, 5)
    assert all(np.array_equal(a, b) for a, b in zip(logits_of(engine), expected, strict=True))
    engine.close()


def test_a_slot_is_free_only_when_no_thread_fills_it_any_more(monkeypatch):
    engine = streamed(monkeypatch, 4)
    layer, reader = next(iter(engine.expert_loader.layers.values())), engine.expert_loader.cache.reader
    gate, failed = threading.Event(), threading.Event()

    def read(_descriptor, _address, size, offset):
        if offset <= layer.matrices[0].offsets[0] < offset + size:
            failed.set()
            return 0
        gate.wait(10)
        return size

    answer(reader, read)
    request = layer.begin_load(0, ())
    failed.wait(10)
    while not request.error:
        pass
    assert layer.pending_load(0)
    assert layer.slots.used == 1
    gate.set()
    request.join()
    assert layer.pending_load(0) is None
    assert layer.slots.used == 0
    assert not layer.is_loaded(0)
    engine.close()


@pytest.mark.parametrize("decoding", [False, True])
def test_a_file_that_shrinks_ends_the_answer_and_nothing_else(monkeypatch, expected, tmp_path, decoding):
    path = shutil.copy(MODEL, tmp_path / "model.gguf")
    engine = streamed(monkeypatch, 4, Path(path))
    engine.prefill(IDS[:100])
    size = path.stat().st_size
    os.truncate(path, 4096)
    with pytest.raises(ModelFileError, match="it ends before byte") as caught:
        [engine.step(id) for id in IDS[100:]] if decoding else logits_of(engine)
    assert caught.value.hint
    shutil.copy(MODEL, path)  # the same file, whole again
    assert path.stat().st_size == size
    engine.reset()
    found = logits_of(engine)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    engine.close()


def test_the_line_of_figures_tells_what_was_read(monkeypatch):
    import qcli.llm as facade
    from qcli.commands.answer import figures

    with facade.LLM(threads=1) as llm:
        text = "".join(llm.generate("Once upon a time", max_tokens=12, temperature=0.0))
        assert "MB for each token" not in " · ".join(figures(llm.stats))
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    with facade.LLM(ram=f"{memory.process_memory() / 1e9 + 1.5:.2f}GB", threads=1) as llm:
        assert "".join(llm.generate("Once upon a time", max_tokens=12, temperature=0.0)) == text
        line = " · ".join(figures(llm.stats))
        assert " MB for each token · " in line
        assert "% of the experts were in memory" in line
        assert llm.stats.disk_reads.hit_rate > 0.5
