"""Layers with a window keep only that: texts many times as long give the bits of caches that keep all, whatever is done."""

from __future__ import annotations

import signal

import every_architecture
import numpy as np
import pytest

from qcli.gguf.file import GGUFFile
from qcli.runtime import saved_text
from qcli.runtime.build import STEP_TOKENS, model_of
from qcli.runtime.checkpoint import Checkpoint, Marks
from qcli.runtime.engine import Engine
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.sequences import Sequences
from qcli.runtime.state_store import StateStore

NAMES = ["afmoe", "exaone-moe", "gemma3", "gemma4", "gemma4-e", "gptoss"]  # all with windows of 16 positions
CTX, CHUNK = 250, 48  # tokens; rings are of 64 rows, so that a text of the whole context wraps three times
IDS = np.random.default_rng(4).integers(6, 60, CTX).tolist()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: every_architecture.write(name, folder / f"{name}.gguf") for name in NAMES}


@pytest.fixture
def load(paths):
    engines = []

    def made(name, whole=False, kv_type="f16", threads=1):
        file = GGUFFile.open(paths[name])
        if whole:  # a state that is not told of a chunk keeps all
            model, state = model_of(file, CTX, kv_type, STEP_TOKENS)
            engines.append(Engine(model, state, threads, CHUNK))
        else:
            engines.append(Engine.load(file, ctx=CTX, chunk=CHUNK, kv_type=kv_type, threads=threads))
        assert bool(engines[-1].state.window_bytes) != whole
        return engines[-1]

    yield made
    for engine in engines:
        engine.close()


def steps(engine, ids):
    return np.array([engine.step(token).copy() for token in ids])


def in_pieces(engine, size):
    engine.reset()
    return np.array([engine.prefill(IDS[i : i + size]).copy() for i in range(0, CTX // size * size, size)])


def with_wrong_guesses(engine, ids, rng):
    """Logits after each of the ids, by steps of several tokens of which the last are wrong."""
    found: list[np.ndarray] = []
    while len(found) < len(ids):
        at, width = len(found), min(int(rng.integers(2, STEP_TOKENS + 1)), engine.ctx - engine.position)
        right = min(int(rng.integers(0, width)), len(ids) - at - 1)
        rows = engine.steps([*ids[at : at + 1 + right], *rng.integers(6, 60, width - 1 - right).tolist()])
        found += [row.copy() for row in rows[: 1 + right]]
        for _ in range(right):
            engine.keep()
    return np.array(found)


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_way_to_read_a_text(load, name):
    ring, whole = load(name), load(name, whole=True)
    assert ring.state.cache_bytes < 0.7 * whole.state.cache_bytes
    assert_same(ring.logits(IDS), whole.logits(IDS))
    for size in (1, 3, 8):
        assert_same(in_pieces(ring, size), in_pieces(whole, size))


@pytest.mark.parametrize(("name", "kv_type"), [("gptoss", "q8_0"), ("gptoss", "f32"), ("exaone-moe", "q8_0")])
def test_other_caches_and_more_threads(load, name, kv_type):
    ring, whole = load(name, kv_type=kv_type, threads=3), load(name, whole=True, kv_type=kv_type)
    assert_same(ring.logits(IDS), whole.logits(IDS))
    assert_same(in_pieces(ring, 1), in_pieces(whole, 1))


@pytest.mark.parametrize("name", NAMES)
def test_guesses_that_are_wrong(load, name):
    ring, whole = load(name), load(name, whole=True)
    for engine in (ring, whole):
        engine.prefill(IDS[:40])
    expected = steps(whole, IDS[40:240])
    assert_same(with_wrong_guesses(ring, IDS[40:240], np.random.default_rng(1)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_gone_back_to_in_any_order(load, name):
    whole, cache = load(name, whole=True), PrefixCache(load(name))
    cache.kept.most_bytes = 1 << 30
    expected, kept = steps(whole, IDS), []
    for i, token in enumerate(IDS):
        assert_same(cache.step(token), expected[i])
        kept.append(cache.checkpoint())
    for count, at in enumerate(np.random.default_rng(2).permutation(CTX - 1)[:60].tolist()):
        if count % 6 == 0:
            cache.prefill(IDS[::-1][: 1 + 4 * count])
        cache.restore(kept[at])
        assert_same(cache.step(IDS[at + 1]), expected[at + 1])


def test_a_text_is_cut_where_its_window_is_still_there(load):
    """At a mark, without a checkpoint: of 200 tokens the rings have 64, the window of all positions from 152 on."""
    cache, whole = PrefixCache(load("gemma3")), PrefixCache(load("gemma3", whole=True))
    for taken in (cache, whole):
        taken.prefill(IDS[:200])
        taken.prefill([*IDS[:155], 7, 8, 9], marks=Marks(frozenset({155})))
        assert taken.prefilled == 3
    for taken, read in ((cache, 147), (whole, 3)):  # not at all, and at the mark
        taken.kept.clear()
        taken.prefill([*IDS[:144], 5, 6, 7], marks=Marks(frozenset({144})))
        assert taken.prefilled == read
    assert_same(cache.step(9), whole.step(9))
    state = cache.engine.state
    assert not state.can_go_back(70)
    with pytest.raises(ValueError, match="windows of position 70"):
        state.rewind(70, ())


def from_pieces(engine, ends, then):
    """Logits of steps after a text that was read up to each of these ends."""
    engine.reset()
    for first, end in zip([0, *ends], ends, strict=False):
        engine.prefill(IDS[first:end])
    return steps(engine, IDS[ends[-1] : ends[-1] + then])


def goes_on(cache, end, expected):
    for i, row in enumerate(expected, end):
        assert_same(cache.prefill(IDS[: i + 1]), row)
        assert cache.prefilled == 1


def test_what_is_written_to_the_disk(load, tmp_path):
    def opened():
        engine = load("gptoss")
        empty = Checkpoint((), engine.state.blank_copy(), np.zeros(engine.vocab_size, np.float32))
        return PrefixCache(engine, StateStore(tmp_path / "states", 1 << 30, empty))

    first, other, whole = opened(), opened(), load("gptoss", whole=True)
    expected = {90: from_pieces(whole, [90], 20), 170: from_pieces(whole, [90, 170], 20)}
    for end in (90, 170, 230):
        first.prefill(IDS[:end])
        first.checkpoint(on_disk=True)
    first.store.wait()
    for end in (170, 90, 170):
        other.kept.clear()
        goes_on(other, end, expected[end])


def test_a_text_in_a_file(load, paths, tmp_path):
    first, other, whole = PrefixCache(load("gemma4")), PrefixCache(load("gemma4")), load("gemma4", whole=True)
    file, state = GGUFFile.open(paths["gemma4"]), other.engine.state
    first.prefill(IDS[:170])
    saved_text.save(tmp_path / "text", first.checkpoint(), first.engine.state, file, False)
    other.prefill(IDS[::-1])
    other.adopt(lambda: saved_text.load(tmp_path / "text", other.engine.vocab_size, state, file))
    goes_on(other, 170, from_pieces(whole, [170], 20))


def test_a_chunk_that_is_interrupted(load, monkeypatch):
    monkeypatch.setattr("qcli.runtime.engine._FINISHED", 8)
    ring, whole = load("gemma3"), load("gemma3", whole=True)

    def interrupt(stage, fraction):
        if fraction > 0.5:
            signal.raise_signal(signal.SIGINT)

    for engine in (ring, whole):
        engine.prefill(IDS[:192])
    with pytest.raises(KeyboardInterrupt):
        ring.prefill(IDS[::-1][:32], interrupt)
    assert ring.position == 192
    assert_same(steps(ring, IDS[192:]), steps(whole, IDS[192:]))


@pytest.mark.parametrize("name", NAMES)
def test_texts_beside_each_other(load, name):
    """In a slot a ring has room for the window and a step alone."""
    ring, whole = load(name), load(name, whole=True)
    sequences, expected = Sequences(ring, 3), {}
    assert ring.state.slot_bytes < 0.7 * whole.state.slot_bytes
    for first, size in enumerate((70, 20, 150)):
        text = IDS[first:]
        for engine in (ring, whole):
            engine.reset()
            engine.prefill(text[:size])
        slot = sequences.join(text[:size], [0] * size)
        expected[slot] = text, steps(whole, text[size : size + 90])
    for i in range(85):
        tokens = {slot: text[sequences.position(slot)] for slot, (text, _) in expected.items()}
        for row, (_, rows) in zip(sequences.step(tokens), expected.values(), strict=True):
            assert_same(row, rows[i])
    for slot, (text, rows) in expected.items():
        at = sequences.position(slot)
        sequences.leave(slot)
        sequences.bring_back(slot, at, 0)
        assert ring.position == at
        assert_same(steps(ring, text[at : at + 5]), rows[85:])
