"""Models larger than memory: the same bits as in memory, from a few slots, and honest ends when the file is gone."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from places import DATA

from qcli.errors import ModelFileError, OutputError, QcliError
from qcli.gguf.file import GGUFFile
from qcli.host import memory
from qcli.host.pages import PAGE, give_back, pages
from qcli.runtime.engine import Engine
from qcli.streaming import budget, pressure, usage_file
from qcli.streaming.prefetch import Pays
from qcli.streaming.prefill_loads import grouped
from qcli.streaming.reader import Reader, Span, room
from qcli.streaming.slots import HALF_LIFE, Slots
from qcli.streaming.staging_buffer import Stage

MODEL = DATA / "qwen3next.gguf"
STORED = 6 * PAGE  # bytes that one of its experts takes in memory
IDS = [int(id) for id in np.random.default_rng(5).integers(0, 200, 150)]


@pytest.fixture
def bytes_file(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 3 * PAGE + 77, np.uint8).tobytes())
    return path


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (1, PAGE), (PAGE - 1, 2), (5000, 7365), (3 * PAGE, 77)])
def test_any_part_of_a_file_is_read_to_its_last_byte(bytes_file, offset, size):
    span = Span(bytes_file, offset, size, pages(room(size)))
    with Reader([bytes_file], lanes=2) as reader:
        ticket = reader.read([span])
        ticket.wait()
    assert span.memory[span.start :][:size].tobytes() == bytes_file.read_bytes()[offset : offset + size]


def test_lanes_read_beside_each_other_where_no_read_has_a_position(bytes_file, monkeypatch):
    monkeypatch.delattr(os, "preadv")
    seek, together = os.lseek, threading.Barrier(4)

    def sought(descriptor, offset, whence):
        seek(descriptor, offset, whence)
        if offset > 0:  # not the trial
            together.wait(10)  # all lanes have sought before any of them reads
        return offset

    monkeypatch.setattr(os, "lseek", sought)
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    spans = [Span(bytes_file, PAGE + 700 * i, 500, pages(room(500))) for i in range(1, 5)]
    with Reader([bytes_file], lanes=4) as reader:
        for ticket in [reader.read([span]) for span in spans]:
            ticket.wait()
    for span in spans:
        assert span.memory[span.start :][:500].tobytes() == bytes_file.read_bytes()[span.offset :][:500]
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before


def test_a_part_that_is_not_there_any_more(bytes_file):
    with Reader([bytes_file]) as reader:
        os.truncate(bytes_file, PAGE)
        with pytest.raises(ModelFileError, match="it ends before byte"):
            reader.read([Span(bytes_file, 100, 2 * PAGE, pages(room(2 * PAGE)))]).wait()


def test_urgent_parts_come_first_and_others_can_be_taken_back(bytes_file, monkeypatch):
    gate, order = threading.Event(), []

    def fill(span, *_files):
        gate.wait(10)
        order.append(span.offset)

    monkeypatch.setattr("qcli.streaming.reader._fill", fill)
    spans = [[Span(bytes_file, i, 1, pages(1))] for i in range(5)]
    with Reader([bytes_file], lanes=1) as reader:
        first = reader.read(spans[0])
        while reader._urgent:  # until the only lane has taken it
            pass
        idle = [reader.read(parts, urgent=False) for parts in spans[1:4]]
        urgent = reader.read(spans[4])
        reader.hurry(idle[2])
        assert reader.give_up(idle[0])
        assert not reader.give_up(first)
        gate.set()
        for ticket in (first, urgent, *idle[1:]):
            ticket.wait()
    assert order == [0, 4, 3, 2]


def test_the_coldest_expert_gives_its_slot():
    slots = Slots(experts=5, slots=2)
    assert [slots.take(3, []), slots.take(1, [])] == [-1, -1]
    slots.choose(np.array([3, 1]))
    slots.choose(np.array([1]))
    assert slots.take(4, [4]) == 3
    assert slots.slot_of.tolist() == [-1, 1, -1, -1, 0]
    with pytest.raises(LookupError):
        slots.take(0, [1, 4])
    slots.free(1)
    assert slots.take(0, [0, 4]) == -1
    assert slots.hottest(9).tolist() == [1, 3]


def test_heat_fades_by_half():
    slots = Slots(4, 2)
    slots.choose(np.array([0]))
    slots.choose(np.array([1]), np.array([HALF_LIFE]))
    heat = slots.heat
    assert heat[0] == pytest.approx(0.5, rel=1e-3)
    for _ in range(400):  # beyond what a number can hold without being scaled down
        slots.choose(np.array([2]), np.array([HALF_LIFE]))
    assert np.isfinite(slots.heat).all()
    assert slots.hottest(1).tolist() == [2]
    other = Slots(4, 2)
    other.heat = heat
    assert np.array_equal(other.heat, heat)


def test_the_quicker_way_is_kept():
    pays = Pays()
    ways = []
    for _ in range(600):
        ways.append(pays.on)
        pays.took(0.5 if pays.on else 1.0)
    assert ways[:32] == 16 * [False] + 16 * [True]
    assert all(ways[32:512])
    assert ways[512:544] == ways[:32]


def test_slots_in_order_of_expert_of_a_few_tokens_at_a_time(monkeypatch):
    monkeypatch.setattr("qcli.streaming.prefill_loads.TOGETHER", 2)
    chosen, slots = np.array([[2, 0], [0, 1], [1, 2]]), np.zeros(6, np.int64)
    first, second = grouped(chosen, 3, slots)
    assert slots.tolist() == [1, 2, 3, 0, 4, 5]
    assert (first.tolist(), second.tolist()) == ([0, 2, 3, 4], [4, 4, 5, 6])


def streamed(
    monkeypatch, slots: int, path: Path = MODEL, heat_path: Path | None = None, staged: int = 1, chunk: int = 64
) -> Engine:
    """An engine that has so many slots in each layer, and `staged` bytes to pass experts by, but room for two at least."""

    def allot(supply, *_):
        supply.allot(slots)

    monkeypatch.setattr("qcli.streaming.prefill_loads.STAGED", staged)
    monkeypatch.setattr(usage_file, "path_for", lambda _file: heat_path)
    if heat_path is None:
        monkeypatch.setattr(usage_file, "load", lambda _path: {})
        monkeypatch.setattr(usage_file, "save", lambda *_: None)
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    monkeypatch.setattr(budget, "allot", allot)
    return Engine.load(GGUFFile.open(path), threads=2, ctx=256, chunk=chunk)


@pytest.fixture(scope="module")
def expected():
    engine = Engine.load(GGUFFile.open(MODEL), threads=2, ctx=256, chunk=64)
    found = logits_of(engine)
    engine.close()
    return found


def logits_of(engine: Engine) -> list[np.ndarray]:
    """Of a prompt of several chunks, of steps after it, and of a second, shorter text."""
    found = [engine.prefill(IDS[:100]).copy(), *(engine.step(id).copy() for id in IDS[100:])]
    engine.reset()
    return [*found, engine.prefill(IDS[:3]).copy(), engine.step(7).copy()]


@pytest.mark.parametrize("more", [0, 1, 3, 1000])
def test_streamed_logits_have_the_same_bits(monkeypatch, expected, more):
    least = GGUFFile.open(MODEL).get_int("qwen3next.expert_used_count")
    engine = streamed(monkeypatch, least + more)
    found = logits_of(engine)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    traffic = engine.supply.traffic
    assert traffic.bytes_read > 0
    assert traffic.hits + traffic.misses == 51 * least * len(engine.supply.layers)
    if more == 1000:
        assert traffic.misses == 0
    engine.close()


def test_no_bit_depends_on_how_files_are_read(monkeypatch, expected):
    monkeypatch.delattr(os, "preadv")
    engine = streamed(monkeypatch, 5)
    assert all(np.array_equal(a, b) for a, b in zip(logits_of(engine), expected, strict=True))
    engine.close()


def test_guesses_change_no_bit(monkeypatch, expected):
    monkeypatch.setattr(Pays, "on", True)
    engine = streamed(monkeypatch, 5)
    found = logits_of(engine)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    engine.close()


def test_a_slot_is_free_only_when_no_lane_fills_it_any_more(monkeypatch):
    engine = streamed(monkeypatch, 4)
    layer, reader = next(iter(engine.supply.layers.values())), engine.supply.stock.reader
    gate, failed = threading.Event(), threading.Event()

    def fill(span, *_files):
        if span.offset == layer.parts[0].offsets[0]:
            failed.set()
            raise EOFError("no more")
        gate.wait(10)

    monkeypatch.setattr("qcli.streaming.reader._fill", fill)
    ticket = layer.fetch(reader, 0, ())
    failed.wait(10)
    while not ticket.error:
        pass
    assert layer.arriving(0) is ticket
    assert layer.slots.used == 1
    gate.set()
    ticket.join()
    assert layer.arriving(0) is None
    assert layer.slots.used == 0
    engine.close()


def test_a_file_that_shrinks_ends_the_answer_and_nothing_else(monkeypatch, expected, tmp_path):
    path = shutil.copy(MODEL, tmp_path / "model.gguf")
    engine = streamed(monkeypatch, 4, Path(path))
    engine.prefill(IDS[:100])
    size = path.stat().st_size
    os.truncate(path, 4096)
    with pytest.raises(ModelFileError, match="it ends before byte") as caught:
        logits_of(engine)
    assert caught.value.hint
    shutil.copy(MODEL, path)  # the same file, whole again
    assert path.stat().st_size == size
    engine.reset()
    found = logits_of(engine)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    engine.close()


@pytest.mark.parametrize("likely", [0, 3, 1e9])
@pytest.mark.parametrize(("chunk", "staged"), [(3, 1), (3, 10 * STORED), (64, 10 * STORED), (64, 1 << 20)])
def test_reading_ahead_of_a_layer_changes_no_bit(monkeypatch, likely, chunk, staged):
    monkeypatch.setattr("qcli.streaming.prefill_loads.LIKELY", likely)
    resident = Engine.load(GGUFFile.open(MODEL), threads=2, ctx=256, chunk=chunk)
    found, ahead = [], []
    engine = streamed(monkeypatch, 4, staged=staged, chunk=chunk)
    read = Stage.read_ahead
    monkeypatch.setattr(Stage, "read_ahead", lambda *given: ahead.append(read(*given)) or ahead[-1])
    for ids in (IDS[:100], IDS[100:]):
        found.append((resident.prefill(ids).copy(), engine.prefill(ids).copy()))
        found.append((resident.step(1).copy(), engine.step(1).copy()))
    assert all(np.array_equal(a, b) for a, b in found)
    assert bool(sum(ahead)) == (likely == 0 or (likely == 3 and chunk == 64))
    resident.close()
    engine.close()


@pytest.mark.parametrize("likely", [0, 3, 1e9])
@pytest.mark.parametrize("staged", [1, 10 * STORED])
def test_a_chunk_reads_no_expert_twice(monkeypatch, likely, staged):
    monkeypatch.setattr("qcli.streaming.prefill_loads.LIKELY", likely)
    engine = streamed(monkeypatch, 4, staged=staged)
    read, offsets = Reader.read, []

    def noted(reader, spans, urgent=True):
        offsets.extend(span.offset for span in spans)
        return read(reader, spans, urgent)

    monkeypatch.setattr(Reader, "read", noted)
    for first in (0, 64):
        engine.prefill(IDS[first : first + 64])
        assert len(set(offsets)) == len(offsets) > 0
        offsets.clear()
    engine.close()


@pytest.mark.parametrize("staged", [1, 10 * STORED])
@pytest.mark.parametrize("likely", [0, 3])
def test_a_prompt_interrupted_in_any_turn_leaves_nothing_behind(monkeypatch, expected, likely, staged):
    monkeypatch.setattr("qcli.streaming.prefill_loads.LIKELY", likely)
    engine = streamed(monkeypatch, 4, staged=staged)
    replay, left = engine._team.run, [0]

    def run(records, *rest):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        replay(records, *rest)

    monkeypatch.setattr(engine._team, "run", run)
    whole = engine.prefill(IDS[:40]).copy()
    stop = 1
    while left[0] <= 0:  # until there are no more turns to be interrupted
        engine.reset()
        left[0] = stop
        with suppress(KeyboardInterrupt):
            engine.prefill(IDS[:40])
        stop += 1
        if left[0] == 0:
            engine.reset()
            assert np.array_equal(engine.prefill(IDS[:40]), whole)
    assert stop > 12
    left[0] = 0
    engine.reset()
    assert all(np.array_equal(a, b) for a, b in zip(logits_of(engine), expected, strict=True))
    engine.close()


@pytest.fixture
def others(monkeypatch):
    """What other programs leave, in MiB, and the time."""
    now = SimpleNamespace(free=4096, time=0.0)
    monkeypatch.setattr(pressure, "available", lambda: now.free << 20)
    monkeypatch.setattr(pressure, "perf_counter", lambda: now.time)
    return now


def looked(others, pressed, free, slots, used):
    others.free = free
    others.time += 1
    assert pressed.due
    slots = pressed.slots_for(slots, used)
    assert not pressed.due
    return slots


def test_slots_are_given_back_in_time_and_return_one_by_one(others):
    pressed = pressure.Pressure(100, 10, 16 << 20)
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
    layers = list(engine.supply.layers.values())

    def free(mib):
        others.free, others.time = mib, others.time + 11
        return mib

    found = [engine.prefill(IDS[:100]).copy()]
    assert [layer.slots.count for layer in layers] == [12] * len(layers)
    free(255)
    with pytest.warns(RuntimeWarning, match=f"experts keep {engine.supply.chosen} of 12 slots in each layer"):
        found.append(engine.step(IDS[100]).copy())
    assert [layer.slots.count for layer in layers] == [engine.supply.chosen] * len(layers)
    for layer in layers:
        closed = layer._memory.reshape(12, -1)[layer.slots.expert_in == -2]
        assert len(closed) == 12 - engine.supply.chosen
        assert not closed.any()  # the system's again
        assert sum(layer.is_here(expert) for expert in range(layer.count)) <= engine.supply.chosen
    found += [engine.step(id).copy() for id in IDS[101:110]]
    found += [engine.step(id).copy() for id in IDS[110:120] if free(4096)]
    assert [layer.slots.count for layer in layers] == [12] * len(layers)
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


@pytest.mark.parametrize("likely", [0, 3])
@pytest.mark.filterwarnings("ignore:memory is short")
def test_memory_that_comes_and_goes_within_a_prompt_changes_no_bit(monkeypatch, expected, others, likely):
    monkeypatch.setattr("qcli.streaming.prefill_loads.LIKELY", likely)
    engine = streamed(monkeypatch, 12, staged=10 * STORED)
    looks, seen = np.random.default_rng(0), set()

    def free():
        others.time += 6
        seen.update(layer.slots.count for layer in engine.supply.layers.values())
        return int(looks.choice([100, 4096])) << 20

    monkeypatch.setattr(pressure, "available", free)
    for _ in range(3):
        assert np.array_equal(engine.prefill(IDS[:100]), expected[0])
        engine.reset()
    assert {engine.supply.chosen, 12} < seen
    engine.close()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="what is resident now, Linux tells")
def test_pages_that_are_given_back_are_no_longer_resident():
    memory_held = pages(64 << 20)
    memory_held[:] = 1
    before = memory.resident()
    give_back(memory_held, PAGE + 1, 48 << 20)
    assert before - memory.resident() > 40 << 20
    assert memory_held[: 2 * PAGE].all()
    assert not memory_held[2 * PAGE : 48 << 20].any()
    assert memory_held[PAGE + (48 << 20) :].all()


def test_a_model_that_fits_stays_mapped_and_one_that_cannot_fit_says_what_it_needs():
    file = GGUFFile.open(MODEL)
    engine = Engine.load(file, threads=1, ctx=64)
    assert engine.supply is None
    engine.close()
    before = threading.active_count()
    with pytest.raises(QcliError, match="do not hold this model") as caught:
        Engine.load(file, threads=2, ctx=64, ram=10**7)
    assert "--ram" in caught.value.hint
    assert threading.active_count() == before


def test_the_next_start_reads_what_was_asked_for(monkeypatch, expected, tmp_path):
    path = tmp_path / "new" / "heat.npz"
    engine = streamed(monkeypatch, 6, heat_path=path)
    logits_of(engine)
    before = engine.supply.heat
    engine.close()
    assert [file.name for file in path.parent.iterdir()] == ["heat.npz"]
    engine = streamed(monkeypatch, 6, heat_path=path)
    assert engine.supply.traffic.bytes_read == 0
    for name, layer in engine.supply.layers.items():
        assert np.array_equal(layer.slots.heat, before[name])
        assert set(layer.slots.expert_in) == set(np.argsort(-before[name], kind="stable")[:6])
    assert all(np.array_equal(a, b) for a, b in zip(logits_of(engine), expected, strict=True))
    engine.close()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_heat_file_that_says_nothing_is_passed_over(tmp_path, damage):
    path = tmp_path / "heat.npz"
    assert usage_file.load(path) == {}
    if damage is None:
        wrong = {"shape": np.ones((2, 2), np.float32), "type": np.ones(3), "sign": np.array([-1, np.inf], np.float32)}
        np.savez(path, **wrong, objects=np.array([{}], object))
        assert usage_file.load(path) == {}
    else:
        path.write_bytes(damage)
        assert usage_file.load(path) == {}


def test_heat_that_cannot_be_kept_is_said_once_and_leaves_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    engine = streamed(monkeypatch, 6, heat_path=tmp_path / "file" / "heat.npz")
    engine.step(1)
    with pytest.raises(OutputError, match="cannot be kept"):
        engine.close()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_line_of_figures_tells_what_was_read(monkeypatch):
    import qcli.llm as facade
    from qcli.commands.answer import figures

    with facade.LLM(threads=1) as llm:
        text = "".join(llm.generate("Once upon a time", max_tokens=12, temperature=0.0))
        assert "MB a token" not in " · ".join(figures(llm.stats))
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    with facade.LLM(ram=f"{memory.resident() / 1e9 + 1.5:.2f}GB", threads=1) as llm:
        assert "".join(llm.generate("Once upon a time", max_tokens=12, temperature=0.0)) == text
        line = " · ".join(figures(llm.stats))
        assert " MB a token · " in line
        assert "% of the experts were in memory" in line
        assert llm.stats.disk_reads.hit_rate > 0.5
