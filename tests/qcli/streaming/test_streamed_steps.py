"""Steps of several tokens whose experts are not all in memory: the bits of a resident model, of guesses and of several texts."""

from __future__ import annotations

from functools import lru_cache

import every_architecture
import numpy as np
import pytest
import reference_models
from streamed_engine import IDS, MODEL, stream_all, streamed

from qcli import LLM
from qcli.errors import QcliError
from qcli.gguf.file import GGUFFile
from qcli.runtime.build import STEP_TOKENS
from qcli.runtime.engine import Engine
from qcli.runtime.sequences import Sequences
from qcli.streaming import pressure

PROMPT = 20
# Models with experts: with and without gates, in a latent space, with biases, with a dense layer, with groups, in streams.
SLOTS = {"qwen3next": 8, "gptoss": 8, "nemotron_h_moe-latent": 8, "granitehybrid": 6, "deepseek2": 6, "gemma4": 6}
SLOTS |= {"qwen4exp": 6}


@pytest.fixture(scope="module")
def path(request, tmp_path_factory):
    if request.param == "qwen3next":
        return MODEL
    return every_architecture.write(request.param, tmp_path_factory.mktemp("model") / "model.gguf")


def resident(path, ids):
    """Logits after a prompt, and after each token behind it, of a resident model."""
    return _resident(path, tuple(ids))


@lru_cache(16)
def _resident(path, ids):
    engine = Engine.load(GGUFFile.open(path), threads=1, ctx=256, chunk=64)
    ids = [id % engine.vocab_size for id in ids]
    found = [engine.prefill(ids[:PROMPT]).copy(), *(engine.step(token).copy() for token in ids[PROMPT:])]
    engine.close()
    return ids, found


def with_guesses(engine, ids, rng):
    """The same by steps of a few tokens, of which the last are wrong."""
    found = [engine.prefill(ids[:PROMPT]).copy()]
    while engine.position < len(ids):
        at, width = engine.position, int(rng.integers(1, engine.most_tokens + 1))
        right = min(int(rng.integers(0, width)), len(ids) - at - 1)
        if width == 1:
            found.append(engine.step(ids[at]).copy())
            continue
        wrong = rng.integers(0, engine.vocab_size, width - 1 - right).tolist()
        rows = engine.steps([*ids[at : at + 1 + right], *wrong])
        found += [row.copy() for row in rows[: 1 + right]]
        for _ in range(right):
            engine.keep()
    return found


def same(some, others):
    return len(some) == len(others) and all(map(np.array_equal, some, others))


@pytest.mark.parametrize(("path", "slots"), SLOTS.items(), indirect=["path"])
def test_guesses_leave_no_trace(path, slots, monkeypatch):
    ids, expected = resident(path, IDS)
    for threads in (1, 3):
        engine = streamed(monkeypatch, slots, path, threads=threads)
        assert engine.most_tokens > 1
        assert same(with_guesses(engine, ids, np.random.default_rng(threads)), expected)
        assert engine.traffic.misses > 0
        engine.close()


@pytest.mark.parametrize("slots", [5, 9, 15, 16])
def test_no_bit_depends_on_how_many_experts_have_room(slots, monkeypatch):
    ids, expected = resident(MODEL, IDS[:80])
    engine = streamed(monkeypatch, slots)
    k = engine.expert_loader.experts_per_token
    assert engine.most_tokens == (STEP_TOKENS if slots == 16 else slots // k)
    assert same(with_guesses(engine, ids, np.random.default_rng(slots)), expected)
    engine.close()


def test_more_tokens_than_there_is_room_for_are_refused(monkeypatch):
    engine = streamed(monkeypatch, 9)
    engine.prefill(IDS[:PROMPT])
    with pytest.raises(QcliError, match="no room for the experts of 3 tokens"):
        engine.steps([1, 2, 3])
    assert engine.position == PROMPT
    engine.steps([1, 2])
    assert engine.position == PROMPT + 1
    engine.close()


def test_an_expert_that_several_tokens_choose_is_read_once(monkeypatch):
    engine = streamed(monkeypatch, 16)
    engine.prefill(IDS[:PROMPT])
    for layer in engine.expert_loader.layers.values():
        layer.resize(0), layer.resize(16)  # nothing is in memory
    engine.reset_traffic()
    engine.steps([7, 7, 7])
    traffic, layers = engine.traffic, engine.expert_loader.layers.values()
    assert traffic.hits == 0
    assert traffic.bytes_read == sum(layer.expert_bytes for layer in layers) * traffic.misses / len(layers)
    assert traffic.misses < 3 * len(layers) * engine.expert_loader.experts_per_token
    engine.close()


def test_reads_that_are_guessed_change_nothing(monkeypatch):
    ids, expected = resident(MODEL, IDS[:80])
    engine = streamed(monkeypatch, 12)
    monkeypatch.setattr("qcli.streaming.prefetch.PrefetchTrial.enabled", property(lambda _: True))
    assert same(with_guesses(engine, ids, np.random.default_rng(2)), expected)
    engine.close()


@pytest.fixture
def others(monkeypatch):
    """Other programs take memory and give it back, whenever it is looked at."""
    looks, time = np.random.default_rng(4), [0.0]

    def now():
        time[0] += 6
        return time[0]

    monkeypatch.setattr(pressure, "perf_counter", now)
    monkeypatch.setattr(pressure, "available_memory", lambda: int(looks.choice([100, 4096])) << 20)


@pytest.mark.filterwarnings("ignore:memory is short")
@pytest.mark.usefixtures("others")
def test_memory_that_comes_and_goes(monkeypatch):
    ids, expected = resident(MODEL, IDS)
    engine = streamed(monkeypatch, 16)
    assert same(with_guesses(engine, ids, np.random.default_rng(5)), expected)
    engine.close()


@pytest.mark.parametrize("path", ["qwen3next", "granitehybrid", "qwen4exp"], indirect=True)
@pytest.mark.parametrize("slots", [9, 16])
def test_texts_that_are_decoded_together(path, slots, monkeypatch):
    """Also more of them than there are slots for the experts of."""
    texts = [IDS[first : first + 40] for first in (0, 20, 40, 60, 80)]
    alone = [resident(path, text) for text in texts]
    engine = streamed(monkeypatch, slots, path)
    sequences, begun = Sequences(engine, len(texts)), []
    for ids, expected in alone:
        engine.reset()
        assert np.array_equal(engine.prefill(ids[:PROMPT]), expected[0])
        begun.append(sequences.join())
    for i in range(40 - PROMPT):
        taken = {slot: alone[j][0][PROMPT + i] for j, slot in enumerate(begun)}
        for j, row in enumerate(sequences.step(taken)):
            assert np.array_equal(row, alone[j][1][1 + i])
    engine.close()


def answers(llm, prompt, *asked):
    """One for each dictionary of options."""
    return ["".join(llm.generate(prompt, stop_loops=False, **options)) for options in asked]


ASKED = (
    "Once upon a time there was a dog. Once upon a time there was a cat. Once upon a time",
    {"max_tokens": 60, "temperature": 0.8, "seed": 5},
    {"max_tokens": 60, "temperature": 0, "seed": 5},
)
LONG = "One day a fox and a crow", {"max_tokens": 100, "temperature": 0}


@pytest.fixture(scope="module")
def without_drafts():
    """Answers of a resident model to ASKED, and to LONG."""
    with LLM(draft="off", threads=1, ctx=256) as llm:
        return answers(llm, *ASKED), answers(llm, *LONG)


@pytest.mark.parametrize(("draft", "slots"), [("auto", 12), (1, 12), (5, 16), (5, 9)])
def test_answers_with_drafts(draft, slots, without_drafts, monkeypatch):
    """Also where there is room for the experts of fewer tokens than are to be guessed."""
    stream_all(monkeypatch, slots)
    with LLM(draft=draft, threads=2, ctx=256) as llm:
        assert llm.engine.expert_loader
        assert answers(llm, *ASKED) == without_drafts[0]
        assert draft == "auto" or llm.stats.guessed > 0


def guesses(engine, ids):
    """By the model's own head, after a prompt and after steps of which a guess stays; and the logits."""
    found = [engine.prefill(ids[:70]).copy()]
    for at in range(70, len(ids) - 1, 2):
        found.append(np.array(engine.draft(ids[at], 3)))
        found += [row.copy() for row in engine.steps(ids[at : at + 2])]
        engine.keep()
    before = engine.state.recurrent_copy()
    engine.prefill(ids[:20])
    engine.state.rewind(len(ids), before)
    return [*found, np.array(engine.draft(7, 2))]


@pytest.mark.parametrize("slots", [9, 12])
def test_guesses_of_the_models_own_head(slots, monkeypatch, tmp_path):
    """Its experts are streamed as those of the layers are."""
    path = reference_models.read("qwen3next-mtp").write(tmp_path / "model.gguf")
    ids = np.random.default_rng(3).integers(6, 60, 110).tolist()
    engine = Engine.load(GGUFFile.open(path), threads=1, ctx=256, chunk=32, mtp=True)
    expected = guesses(engine, ids)
    engine.close()
    stream_all(monkeypatch, slots)
    engine = Engine.load(GGUFFile.open(path), threads=2, ctx=256, chunk=32, mtp=True)
    assert len(engine.expert_loader.layers) == 6
    assert same(guesses(engine, ids), expected)
    assert engine.traffic.bytes_read > 0
    engine.close()


@pytest.mark.filterwarnings("ignore:memory is short")
@pytest.mark.parametrize("draft", ["mtp", 5])
def test_answers_where_memory_comes_and_goes(draft, without_drafts, monkeypatch, request):
    """Also between a guess and the step that it is for."""
    stream_all(monkeypatch, 16)
    request.getfixturevalue("others")
    with LLM(draft=draft, threads=2, ctx=256) as llm:
        assert answers(llm, *LONG) == without_drafts[1]
