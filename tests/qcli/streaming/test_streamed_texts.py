"""Several texts of a model whose experts are read from the disk: the bits of each alone, and memory that the cache gives up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import every_architecture
import numpy as np
import pytest
from brief_forecast import be_brief
from streamed_engine import IDS, MODEL, stream_all, streamed

from qcli import LLM
from qcli.forecast.forecast import forecast
from qcli.gguf.file import GGUFFile
from qcli.host.memory import process_memory
from qcli.progress import Progress
from qcli.protocol.question import Question
from qcli.runtime.engine import Engine
from qcli.runtime.places import places, text_bytes
from qcli.runtime.sequences import Sequences
from qcli.serving.answers import Done, Failed, Said, Working
from qcli.serving.several_at_a_time import SeveralAtATime
from qcli.streaming import budget, pressure
from qcli.streaming.expert_loader import ExpertLoader

PROMPT, STEPS = 20, 40
ASKED = [f"{who} went to the {where}" for who in ("A fox", "The king") for where in ("sea", "shop", "old tree")]


def loader(experts, k, slot_bytes=100) -> Any:
    """Of a model of two layers, with so many experts each, of which a token chooses k."""
    layers = {i: SimpleNamespace(expert_count=experts, slot_bytes=slot_bytes) for i in range(2)}
    some = SimpleNamespace(layers=layers, experts_per_token=k, max_slots=experts)
    some.cache_bytes = lambda slots: ExpertLoader.cache_bytes(some, slots)
    some.slots_without = lambda n_bytes, slots: ExpertLoader.slots_without(some, n_bytes, slots)
    return some


def test_texts_take_an_eighth_of_the_cache_at_most():
    """64 slots of 100 bytes in each of two layers: 1,600 of 12,800 bytes."""
    some = loader(experts=128, k=4)
    assert [budget.texts_beside(some, 64, 0, each, 8) for each in (100, 200, 300, 800, 801)] == [8, 8, 5, 2, 1]
    assert budget.texts_beside(some, 64, 0, 100, 3) == 3
    assert budget.texts_beside(some, 64, 800, 800, 8) == 3


def test_what_is_left_of_it_holds_the_experts_of_all_of_them():
    some = loader(experts=128, k=8)
    assert budget.texts_beside(some, 64, 0, 20, 32) == 7  # 140 bytes are a slot in each layer: 63 are left, not 64
    assert budget.texts_beside(some, 15, 0, 1, 32) == 1
    assert (
        budget.texts_beside(loader(experts=16, k=8), 16, 400, 20, 32) == 20
    )  # where all experts are in memory, so they stay


def test_a_cache_that_gives_memory_up_does_not_take_it_back(monkeypatch):
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(pressure, "perf_counter", lambda: now.time)
    monkeypatch.setattr(pressure, "available_memory", lambda: 1 << 40)
    engine = streamed(monkeypatch, 12)
    some, layers = engine.expert_loader, engine.expert_loader.layers.values()
    engine.prefill(IDS[:100])
    each = some.cache_bytes(1)
    some.give_up(3 * each - 1)
    assert {layer.slots.available for layer in layers} == {9}
    for _ in range(50):
        now.time += 5
        engine.step(7)
    assert {layer.slots.available for layer in layers} == {9}
    some.give_up(2 * each)  # of all that was allocated, not of what is left
    for _ in range(50):
        now.time += 5
        engine.step(7)
    assert {layer.slots.available for layer in layers} == {10}
    some.give_up(1 << 40)
    assert {layer.slots.available for layer in layers} == {some.experts_per_token}
    engine.close()


def between_layers(engine, sequences, slots, texts, rows):
    """What takes a step of all texts wherever one may be taken, in the midst of a prompt."""
    taken = [0]

    def told(stage, fraction):
        if engine.expert_loader.within_layer or sequences.position(slots[0]) == len(texts[0]):
            return
        tokens = {slot: texts[i][sequences.position(slot)] for i, slot in enumerate(slots)}
        for i, row in enumerate(sequences.step(tokens)):
            rows[i].append(row.copy())
        taken[0] += 1

    return told, taken


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Of a model, by name: its file, a prompt, logits behind it; texts, and logits of each after its prompt and its tokens."""
    return cache(lambda name: _alone(name, tmp_path_factory.mktemp(name)))


def _alone(name, folder):
    path = MODEL if name == "qwen3next" else every_architecture.write(name, folder / "model.gguf")
    resident = Engine.load(GGUFFile.open(path), threads=1, ctx=256, chunk=16)
    ids = [id % resident.vocab_size for id in IDS]
    texts, expected = [ids[first : first + PROMPT + STEPS] for first in (0, 30, 60)], []
    for text in texts:
        resident.reset()
        expected.append([resident.prefill(text[:PROMPT]).copy()])
        expected[-1] += [resident.step(id).copy() for id in text[PROMPT:]]
    resident.reset()
    prompt = resident.prefill(ids).copy()
    resident.close()
    return path, ids, prompt, texts, expected


@pytest.mark.parametrize("likely", [0, 3, 1e9])
@pytest.mark.parametrize(
    ("name", "slots", "staged"), [("qwen3next", 8, 1), ("qwen3next", 9, 1 << 18), ("gptoss", 8, 1 << 16)]
)
def test_steps_in_the_midst_of_a_prompt_change_nothing(name, slots, staged, likely, alone, monkeypatch):
    """Though they drive experts out of memory that a readahead had counted upon."""
    monkeypatch.setattr("qcli.streaming.prefill_loads.READAHEAD_CHOICES", likely)
    path, ids, prompt, texts, expected = alone(name)
    engine = streamed(monkeypatch, slots, path, staged=staged, chunk=16)
    rows: list[list[np.ndarray]] = [[], [], []]
    sequences, begun = Sequences(engine, 3), []
    for text, found in zip(texts, rows, strict=True):
        engine.reset()
        found.append(engine.prefill(text[:PROMPT]).copy())
        begun.append(sequences.join())
    engine.reset()
    engine.tell_every = 0.0
    told, taken = between_layers(engine, sequences, begun, texts, rows)
    assert np.array_equal(engine.prefill(ids, told), prompt)
    assert taken[0] == STEPS
    for found, rows_alone in zip(rows, expected, strict=True):
        assert len(found) == len(rows_alone)
        assert all(map(np.array_equal, found, rows_alone))
    engine.close()


@pytest.mark.parametrize("staged", [1, 1 << 18])
def test_a_prompt_that_is_given_up_anywhere_leaves_the_others_alone(staged, monkeypatch):
    monkeypatch.setattr("qcli.streaming.prefill_loads.READAHEAD_CHOICES", 0)
    resident = Engine.load(GGUFFile.open(MODEL), threads=1, ctx=256, chunk=64)
    resident.prefill(IDS[:PROMPT])
    engine = streamed(monkeypatch, 8, staged=staged)
    sequences = Sequences(engine, 1)
    engine.prefill(IDS[:PROMPT])
    slot, told, stop = sequences.join(), [0], 0
    engine.tell_every = 0.0

    def give_up(stage, fraction):
        told[0] += 1
        if told[0] == stop:
            raise KeyboardInterrupt

    while told[0] >= stop:
        stop, told[0] = stop + 1, 0
        engine.reset()
        with suppress(KeyboardInterrupt):
            engine.prefill(IDS[:60], give_up)
        token = IDS[100 + stop % 40]
        assert np.array_equal(sequences.step({slot: token})[0], resident.step(token))
    assert stop > 20
    engine.close()
    resident.close()


def answered(llm, parallel):
    results = llm.batch(ASKED, parallel=parallel, max_tokens=25, temperature=0.8, seed=3)
    assert [result.problem for result in results] == [None] * len(ASKED)
    return [result.text for result in results]


@pytest.fixture(scope="module")
def one_at_a_time():
    with LLM(threads=1, ctx=256, keep="shared") as llm:
        return answered(llm, 1)


@pytest.mark.parametrize("slots", [8, 12, 16])
def test_answers_side_by_side_are_those_of_one_at_a_time(slots, one_at_a_time, monkeypatch):
    """Also where the cache gives some of its slots up for them."""
    stream_all(monkeypatch, slots)
    with LLM(threads=2, ctx=256, keep="shared") as llm:
        loader = llm.engine.expert_loader
        monkeypatch.setattr(llm.engine, "reset_traffic", lambda: None)
        assert answered(llm, 1) == one_at_a_time
        chosen = loader.traffic.hits + loader.traffic.misses
        assert answered(llm, 4) == one_at_a_time
        assert llm.stats.disk_reads is None  # of which nobody can tell whose they are
        assert loader.traffic.hits + loader.traffic.misses < 1.95 * chosen  # what several choose, and is looked up once
        assert places(llm.engine, 4) == min(4, slots // loader.experts_per_token if slots < 16 else 4)


def test_the_cache_gives_slots_up_for_them(monkeypatch):
    monkeypatch.setattr(budget, "_TEXTS", 2)
    with LLM(threads=1, ctx=64, keep="shared") as llm:
        expected = answered(llm, 1)
    stream_all(monkeypatch, 14, spare=0)
    with LLM(threads=2, ctx=64, keep="shared") as llm:
        loader, each = llm.engine.expert_loader, text_bytes(llm.engine.state, llm.engine.vocab_size)
        most = places(llm.engine, 8)
        assert 1 < most < 4
        assert answered(llm, 8) == expected
        left = {layer.slots.available for layer in loader.layers.values()}
        assert left == {loader.slots_without(most * each, 14)}
        assert most * loader.experts_per_token <= left.pop() < 14
        assert places(llm.engine, 8) == most


def served(parallel, questions, **more):
    """The answers to questions in a queue, and how many pieces of others came while the prompt of the last was read."""

    def load(name: str | None, progress: Progress) -> LLM:
        return LLM(threads=2, ctx=256, keep="shared", progress=progress)

    def hear(i: int) -> Callable[[Any], None]:
        return lambda event: told.put((i, event))

    answers = SeveralAtATime(load, parallel=parallel, **more)
    answers.start()
    told: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    texts, left, between, reads = [""] * len(questions), len(questions), 0, False
    for i, asked in enumerate(questions):
        answers.submit(asked, hear(i))
    while left:
        i, event = told.get(timeout=60)
        assert not isinstance(event, Failed)
        last = i == len(questions) - 1
        reads = reads if not last else isinstance(event, Working) and event.stage != "beginning"
        between += reads and not last and isinstance(event, Said)
        texts[i] += event.piece if isinstance(event, Said) else ""
        left -= isinstance(event, Done)
    answers.close()
    return texts, between


def test_others_go_on_between_the_layers_of_a_prompt(monkeypatch):
    """Where none may wait at all."""
    stream_all(monkeypatch, 12)
    long: dict[str, Any] = {"max_tokens": 60, "temperature": 0.8, "stop_loops": False}
    options: list[Any] = [{**long, "seed": i} for i in range(3)]
    questions = [Question(asked, options[i]) for i, asked in enumerate(ASKED[:3])]
    questions.append(Question("a dog " * 90, {"max_tokens": 3, "temperature": 0}))
    expected, none = served(1, questions)
    found, some = served(4, questions, max_gap=0.0)
    assert found == expected
    assert none == 0 < some


def test_a_forecast_tells_how_many_there_is_room_for(monkeypatch):
    be_brief(monkeypatch)
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    monkeypatch.setattr("qcli.forecast.forecast._MOST", 5)
    file = GGUFFile.open(MODEL)
    found = forecast(file, threads=1, ctx=64, ram=process_memory() + 10**9)
    engine = Engine.load(file, threads=1, ctx=64, ram=process_memory() + 10**9)
    assert found.beside.bytes_each == text_bytes(engine.state, engine.vocab_size)
    assert found.beside.texts == places(engine, 5) == 5
    engine.close()
