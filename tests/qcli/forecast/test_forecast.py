"""Forecasts: the same memory as the engine takes, trial runs of the model's own kernels."""

from __future__ import annotations

import gc
import re

import pytest
import reference_models
from brief_forecast import be_brief
from places import DATA

from qcli.errors import QcliError
from qcli.forecast.forecast import forecast
from qcli.forecast.simulated_cache import SimulatedCache
from qcli.gguf.file import GGUFFile
from qcli.host.memory import process_memory
from qcli.runtime.engine import Engine
from qcli.runtime.places import text_bytes
from qcli.streaming import budget, usage_file

MODEL = DATA / "qwen3next.gguf"
ARCHITECTURES = reference_models.NAMES


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Measure for a moment only."""
    be_brief(monkeypatch)


@pytest.fixture
def too_small(monkeypatch):
    """Nothing fits into memory as a whole."""
    monkeypatch.setattr(budget, "fits", lambda *_: False)


def test_a_model_that_fits_is_said_to_be_resident():
    file = GGUFFile.open(MODEL)
    found = forecast(file, threads=1, ctx=64)
    assert (found.mode, found.threads, found.ctx, found.kv_type) == ("resident", 1, 64, "f16")
    assert found.weights.dense + found.weights.experts == sum(t.n_bytes for t in file.tensors.values())
    assert found.weights.experts == sum(t.n_bytes for t in file.tensors.values() if "_exps." in t.name)
    assert found.memory.needed < found.memory.ram
    assert found.speed.prompt_tokens == 64
    assert found.speed.decode_tok_per_s > 0
    assert found.speed.prefill_tok_per_s > 0
    engine = Engine.load(file, threads=1, ctx=64)
    assert found.weights.per_token == engine.weight_bytes_per_step()
    assert found.memory.state == engine.state.n_bytes
    engine.close()


@pytest.mark.parametrize("name", ["qwen3next-mtp", "qwen35-mtp"])
@pytest.mark.parametrize("mtp", [False, True])
def test_a_head_for_guesses_is_counted_where_it_is_loaded(name, mtp, tmp_path):
    file = GGUFFile.open(reference_models.read(name).write(tmp_path / "model.gguf"))
    found = forecast(file, threads=1, ctx=512, mtp=mtp)
    engine = Engine.load(file, threads=1, ctx=512, mtp=mtp)
    assert found.memory.state == engine.state.n_bytes
    assert found.memory.kv_cache == engine.state.cache_bytes
    assert found.beside.bytes_each == text_bytes(engine.state, engine.vocab_size)
    engine.close()
    whole = sum(tensor.n_bytes for tensor in file.tensors.values())
    loaded = found.weights.dense + found.weights.experts
    assert loaded == whole if mtp else loaded < whole


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_that_does_not_fit_is_tried_with_reads(too_small, name, tmp_path):
    file = GGUFFile.open(reference_models.read(name).write(tmp_path / "model.gguf"))
    found = forecast(file, threads=2, ctx=64, ram=process_memory() + 10**9)
    if not found.weights.experts:
        assert found.mode == "resident"
        return
    assert found.mode == "streamed"
    assert (
        found.streaming.slots == found.streaming.experts_per_layer
    )  # there is room; it is only not allowed to stay mapped
    assert found.streaming.hit_rate == 1
    assert found.streaming.bytes_per_token == 0
    assert found.streaming.disk_bytes_per_s > 0


@pytest.mark.parametrize("mtp", [False, True])
def test_slots_are_those_that_the_engine_gets(monkeypatch, too_small, tmp_path, mtp):
    """Within what the kernels, loaded by one of them first, take."""
    file = GGUFFile.open(reference_models.read("qwen3next-mtp").write(tmp_path / "model.gguf"))
    monkeypatch.setattr("qcli.streaming.prefill_loads.STAGING_BYTES", 1)
    monkeypatch.setattr(usage_file, "save", lambda *_: None)
    asked, decide = [], budget.slot_budget

    def slot_budget(loader, state, plans, ram, used):
        slot_bytes = loader.bytes_for(4) - loader.bytes_for(3)
        buffers = sum(plan.n_bytes for plan in plans)
        asked.append((slot_bytes, loader.experts_per_token, state.n_bytes, buffers))
        return decide(loader, state, plans, ram, used)

    monkeypatch.setattr(budget, "slot_budget", slot_budget)
    forecast(file, threads=2, ctx=256, ram=process_memory() + 10**9, mtp=mtp)
    Engine.load(file, threads=2, ctx=256, ram=process_memory() + 10**9, mtp=mtp).close()
    assert asked[0] == asked[-1]  # before that, the engine asks once without the head: whether there is any room


def test_misses_are_read_and_counted(monkeypatch, too_small):
    monkeypatch.setattr("qcli.forecast.forecast.hit_rate", lambda *_: 0.25)
    caches, allocate = [], SimulatedCache.allocate
    monkeypatch.setattr(SimulatedCache, "allocate", lambda cache, rates: caches.append(cache) or allocate(cache, rates))
    found = forecast(GGUFFile.open(MODEL), threads=2, ctx=64, ram=process_memory() + 10**9)
    (cache,) = caches
    assert 0.05 < cache.loader.traffic.hit_rate < 0.5
    layers = cache.loader.layers.values()
    whole = sum(layer.expert_bytes for layer in layers) * cache.loader.experts_per_token
    assert found.streaming.bytes_per_token == pytest.approx(0.75 * whole)
    every_expert = sum(layer.expert_bytes * layer.expert_count for layer in layers)
    assert cache.bytes_per_prompt(10_000) == pytest.approx(every_expert, rel=1e-3)


def test_too_little_memory_is_said_with_what_it_takes():
    found = forecast(GGUFFile.open(MODEL), threads=1, ctx=64, ram=10**7)
    assert found.mode == "too large"
    assert found.speed is None
    assert found.memory.needed > process_memory() // 2


def test_a_small_model_is_asked_for_what_it_takes_in_memory():
    """Staging experts takes more than the whole of this one."""
    gc.collect()  # or what earlier tests left would go in between
    file = GGUFFile.open(MODEL)
    least = forecast(file, threads=1, ctx=64, ram=10**7).memory.needed
    assert forecast(file, threads=1, ctx=64, ram=least + (32 << 20)).mode == "resident"
    with pytest.raises(QcliError) as refused:
        Engine.load(file, threads=1, ctx=64, ram=10**7)
    found = re.search(r"--ram ([\d.]+)GB", refused.value.hint)
    assert found
    assert float(found[1]) * 1e9 == pytest.approx(least, abs=150e6)
    engine = Engine.load(file, threads=1, ctx=64, ram=int(float(found[1]) * 1e9) + (32 << 20))
    assert engine.expert_loader is None
    engine.close()
