"""Several texts decoded together: each gets the bits that it gets alone, whoever joins and leaves."""

from __future__ import annotations

import every_architecture
import numpy as np
import pytest
from streamed_engine import MODEL, streamed

from qcli.errors import ContextOverflowError, QcliError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.runtime.sequences import Sequences

NAMES = ["qwen3next", *every_architecture.NAMES]
CHANCE = np.random.default_rng(3)
TEXTS = [CHANCE.integers(6, 60, size).tolist() for size in (40, 61, 33, 52, 70)]
PROMPTS = [9, 20, 3, 31, 12]


@pytest.fixture(scope="module")
def path(request, tmp_path_factory):
    if request.param == "qwen3next":
        return MODEL
    return every_architecture.write(request.param, tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture
def load():
    engines = []

    def from_path(path=MODEL, **options):
        engines.append(Engine.load(GGUFFile.open(path), **{"threads": 1, "ctx": 96, "chunk": 32} | options))
        return engines[-1]

    yield from_path
    for engine in engines:
        engine.close()


def begin(engine, i):
    engine.reset()
    return engine.prefill(TEXTS[i][: PROMPTS[i]]).copy()


def alone(engine, i):
    begin(engine, i)
    return [engine.step(token).copy() for token in TEXTS[i][PROMPTS[i] :]]


def together(engine, most, rng):
    """All texts, as slots get free; in each step some of those that are there take a token."""
    sequences, waiting = Sequences(engine, most), list(range(len(TEXTS)))
    slots, found = dict[int, int](), {i: list[np.ndarray]() for i in waiting}
    while waiting or slots:
        if waiting and len(sequences) < most and rng.random() < 0.5:
            i = waiting.pop(0)
            begin(engine, i)
            slots[sequences.join()] = i
        some = [slot for slot in slots if rng.random() < 0.8]
        if not some:
            continue
        rng.shuffle(some)
        tokens = {slot: TEXTS[slots[slot]][sequences.position(slot)] for slot in some}
        for slot, row in zip(tokens, sequences.step(tokens), strict=True):
            found[slots[slot]].append(row.copy())
        for slot in some:
            if sequences.position(slot) == len(TEXTS[slots[slot]]):
                sequences.leave(slot)
                del slots[slot]
    return found


@pytest.mark.parametrize("path", NAMES, indirect=True)
def test_neighbours_leave_no_trace(path, load):
    engine = load(path)
    expected = {i: alone(engine, i) for i in range(len(TEXTS))}
    for threads, most in ((1, 3), (3, 4)):
        found = together(load(path, threads=threads), most, np.random.default_rng(most))
        for i, rows in expected.items():
            assert np.array_equal(found[i], rows)


@pytest.mark.parametrize("kv_type", ["q8_0", "f32"])
def test_nor_in_other_caches(load, kv_type):
    engine = load(kv_type=kv_type)
    expected = {i: alone(engine, i) for i in range(len(TEXTS))}
    found = together(engine, 2, np.random.default_rng(1))
    for i, rows in expected.items():
        assert np.array_equal(found[i], rows)


def test_the_engine_goes_on_beside_them(load):
    engine, other = load(), load()
    expected = alone(other, 0)
    begin(engine, 0)
    sequences = Sequences(engine, 2)
    slot = sequences.join()
    for i, token in enumerate(TEXTS[0][PROMPTS[0] :]):
        assert np.array_equal(sequences.step({slot: token})[0], expected[i])
        if i % 3 == 0:
            begin(engine, 1 + i % 4)
    assert np.array_equal(alone(engine, 0), expected)


@pytest.mark.parametrize("path", ["qwen3next", "qwen4exp"], indirect=True)
def test_guesses_that_stay_go_along(path, load):
    engine, plain = load(path), load(path)
    begin(engine, 1), begin(plain, 1)
    text = TEXTS[1][PROMPTS[1] :]
    engine.steps(text[:5])
    for _ in range(3):
        engine.keep()
    sequences = Sequences(engine, 1)
    slot = sequences.join()
    for token in text[:4]:
        plain.step(token)
    assert np.array_equal(sequences.step({slot: text[4]})[0], plain.step(text[4]))


def test_full_slots_and_full_texts(load):
    engine = load(ctx=12)
    engine.prefill(TEXTS[0][:11])
    sequences = Sequences(engine, 1)
    slot = sequences.join()
    with pytest.raises(QcliError, match="1 texts are decoded"):
        sequences.join()
    sequences.step({slot: 5})
    with pytest.raises(ContextOverflowError):
        sequences.step({slot: 5})
    sequences.leave(slot)
    assert len(sequences) == 0
    assert sequences.join() == 0


def test_no_room_for_the_experts_of_two(monkeypatch):
    engine = streamed(monkeypatch, 5)
    assert engine.most_tokens == 1
    with pytest.raises(QcliError, match="no room for the experts of several texts"):
        Sequences(engine, 2)
    engine.close()
