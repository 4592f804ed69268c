"""Left and resumed, undone, forked and back: the same bits as a text that never left, of every architecture."""

from __future__ import annotations

import every_architecture
import numpy as np
import pytest
from streamed_engine import MODEL, streamed

from qcli.gguf.file import GGUFFile
from qcli.runtime.checkpoint import Checkpoint, Marks
from qcli.runtime.engine import Engine
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.state_store import StateStore

NAMES = ["qwen3next", *every_architecture.NAMES]
IDS = np.random.default_rng(8).integers(6, 60, 200).tolist()
FIRST, SECOND, OTHER = IDS[:40], IDS[40:75], IDS[80:100]  # what is asked


@pytest.fixture(scope="module")
def path(request, tmp_path_factory):
    """The file of an architecture."""
    if request.param == "qwen3next":
        return MODEL
    return every_architecture.write(request.param, tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture
def begin(tmp_path):
    """A prefix cache of a new engine; all of one test share their states on the disk."""
    engines = []

    def new(path, **options):
        return opened(Engine.load(GGUFFile.open(path), **{"threads": 1, "ctx": 256, "chunk": 32} | options))

    def opened(engine):
        engines.append(engine)
        empty = Checkpoint((), engine.state.recurrent_copy(), np.zeros(engine.vocab_size, np.float32))
        return PrefixCache(engine, StateStore(tmp_path / "states", 1 << 30, empty))

    new.opened = opened
    yield new
    for engine in engines:
        engine.close()


def turn(cache, text, answer=12):
    """Prefill a text and decode an answer by the largest logit; all logits, and the text with the answer."""
    text = list(text)
    logits = [cache.prefill(text, marks=Marks(frozenset({len(text)}))).copy()]
    for _ in range(answer):
        text.append(int(logits[-1].argmax()))
        logits.append(cache.step(text[-1]).copy())
    cache.checkpoint(on_disk=True)
    return np.array(logits), text


def check(first, resumed):
    """first, resumed: prefix caches with states of their own in memory."""
    _, one = turn(first, FIRST)
    after_one, two = turn(first, one + SECOND)
    after_two, _ = turn(first, two + OTHER)
    first.store.wait()

    found, again = turn(resumed, one + SECOND)
    assert resumed.prefilled == len(SECOND)
    assert again == two
    assert np.array_equal(found, after_one)

    other, fork = turn(resumed, one + OTHER)  # undone, and something else asked
    assert resumed.prefilled == len(OTHER)
    assert not np.array_equal(other[:1], after_one[:1])
    assert np.array_equal(turn(resumed, two + OTHER)[0], after_two)  # back in the first branch
    assert resumed.prefilled == len(OTHER)
    assert np.array_equal(turn(resumed, one + OTHER)[0], other)  # the fork once more
    assert resumed.prefilled == 0
    resumed.prefill(fork)
    assert resumed.prefilled == 0


@pytest.mark.parametrize("path", NAMES, indirect=True)
def test_every_architecture(begin, path):
    check(begin(path), begin(path))


def test_keys_and_values_in_half_the_memory(begin):
    check(begin(MODEL, kv_type="q8_0"), begin(MODEL, kv_type="q8_0"))


def test_streamed_experts(begin, monkeypatch):
    check(begin(MODEL), begin.opened(streamed(monkeypatch, 4, chunk=32, threads=1)))


def test_more_threads(begin):
    check(begin(MODEL), begin(MODEL, threads=2))


@pytest.mark.parametrize("path", ["qwen3next", "gemma3", "qwen4exp"], indirect=True)
def test_without_a_disk(begin, path):
    """Where nothing is kept but in memory, branches are gone back to, too."""
    first, cache = begin(path), begin(path)
    cache.store = None
    after_one, one = turn(first, FIRST)
    after_two, two = turn(first, one + SECOND)
    assert np.array_equal(turn(cache, FIRST)[0], after_one)
    assert np.array_equal(turn(cache, one + OTHER)[1][: len(one)], one)
    assert np.array_equal(turn(cache, one + SECOND)[0], after_two)
    other = turn(cache, one + OTHER)
    assert cache.prefilled == 0
    for text in (two, other[1], one, two):
        cache.prefill(text)
        assert cache.prefilled == 0
    assert np.array_equal(turn(cache, two + OTHER)[0], turn(first, two + OTHER)[0])
