"""Texts that begin alike and are decoded together: the beginning is read once, and copied where it is not there already."""

from __future__ import annotations

from typing import Any

import every_architecture
import numpy as np
import pytest
from streamed_engine import MODEL

from qcli import LLM
from qcli.gguf.file import GGUFFile
from qcli.layers.state import State
from qcli.runtime.checkpoint import Marks
from qcli.runtime.engine import Engine
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.together import Together

IDS = np.random.default_rng(6).integers(6, 60, 400).tolist()
SHARED = IDS[:80]
ENDS = [IDS[100:117], IDS[120:139], IDS[140:146]]
MARK = Marks(frozenset({len(SHARED)}))
RULES = "You tell stories about animals that live by the sea, and you are kind. " * 8


@pytest.fixture
def engine(request, tmp_path):
    path = MODEL if request.param == "qwen3next" else every_architecture.write(request.param, tmp_path / "model.gguf")
    engine = Engine.load(GGUFFile.open(path), threads=1, ctx=256, chunk=32)
    yield engine
    engine.close()


def afresh(engine, prompt, marks=MARK):
    """The logits after a prompt that nothing was known of."""
    engine.reset()
    return PrefixCache(engine).prefill(prompt, marks=marks).copy()


@pytest.mark.parametrize("engine", ["qwen3next", "deepseek2", "kimi-linear", "gptoss", "qwen4exp"], indirect=True)
def test_a_beginning_is_taken_from_the_slot_that_has_it(engine):
    """Where nothing else has it any more: another prompt has overwritten it, and copies have no room."""
    expected = [afresh(engine, [*SHARED, *end]) for end in ENDS]
    engine.reset()
    cache = PrefixCache(engine)
    together = Together(cache, 3)
    cache.kept.most_bytes = 0
    first = together.text()
    assert np.array_equal(first.prefill([*SHARED, *ENDS[0]], marks=MARK), expected[0])
    for end, logits in zip(ENDS[1:], expected[1:], strict=True):
        cache.prefill(IDS[200:260])
        assert cache.kept.n_bytes == sum(checkpoint.n_bytes for checkpoint in cache.kept.checkpoints)  # no rows
        text = together.text()
        assert np.array_equal(text.prefill([*SHARED, *end], marks=MARK), logits)
        assert text.prefilled == len(end)
        text.leave(whole=False)
    rows = together._sequences.step({first.slot: 7})
    engine.reset()
    alone = PrefixCache(engine)
    alone.prefill([*SHARED, *ENDS[0]], marks=MARK)
    assert np.array_equal(rows[0], alone.step(7))


@pytest.mark.parametrize("engine", ["deepseek2"], indirect=True)
def test_without_recurrent_states_a_chunk_is_taken_from_the_midst_of_a_text(engine):
    prompt = [*SHARED, *ENDS[1]]
    expected = afresh(engine, prompt, Marks())
    engine.reset()
    cache = PrefixCache(engine)
    together = Together(cache, 2)
    together.text().prefill([*SHARED, *ENDS[0]])
    cache.prefill(IDS[200:260])
    assert np.array_equal(cache.prefill(prompt), expected)
    assert cache.prefilled == len(prompt) - 64


@pytest.mark.parametrize("engine", ["deepseek2"], indirect=True)
def test_nothing_is_taken_that_was_computed_in_another_way(engine):
    """Tokens of an answer, which came one by one, in the midst of a prompt."""
    prompt = IDS[:100]
    expected = afresh(engine, prompt, Marks())
    engine.reset()
    cache = PrefixCache(engine)
    together = Together(cache, 2)
    text = together.text()
    text.prefill(prompt[:70])
    for id in [*prompt[70:], 6, 7]:
        together._sequences.step({text.slot: id})
    cache.prefill(IDS[200:260])
    assert np.array_equal(cache.prefill(prompt), expected)
    assert cache.prefilled == 100 - 64


@pytest.mark.parametrize("engine", ["qwen3next", "gptoss"], indirect=True)
def test_a_slot_is_written_from_where_it_differs(engine, monkeypatch):
    """That bits do not change, the other tests see; here is what is copied."""
    copied, right = [], State.copy_to

    def copy_to(state, slots, slot, first=0):
        copied.append((first, state.position))
        right(state, slots, slot, first)

    monkeypatch.setattr(State, "copy_to", copy_to)
    cache = PrefixCache(engine)
    together = Together(cache, 1)
    for end in ENDS:
        text = together.text()
        text.prefill([*SHARED, *end], marks=MARK)
        text.leave(whole=True)
    assert copied == [(0, 97), (80, 99), (80, 86)]
    text = together.text()
    text.prefill(IDS[200:260])
    assert copied[3] == (0, 60)


def test_conversations_in_turns_do_not_drive_each_other_out():
    with LLM(threads=2, ctx=512) as llm:
        talks: list[list[dict[str, Any]]] = [
            [{"role": "user", "content": f"Tell me a story about a {who}."}] for who in ("fox", "cat", "dog", "owl")
        ]
        known = [0] * len(talks)
        for _ in range(3):
            for i, talk in enumerate(talks):
                (result,) = llm.batch([talk], parallel=4, max_tokens=9, temperature=0)
                assert result.stats.cached_tokens >= known[i]
                known[i] = result.stats.prompt_tokens + result.stats.new_tokens - 1
                said = {"role": "assistant", "content": result.text, "ids": result.ids}
                talks[i] = [*talk, said, {"role": "user", "content": "And then?"}]


def test_a_system_message_of_all_questions_is_read_once():
    asked = [
        [{"role": "system", "content": RULES}, {"role": "user", "content": f"Tell me a story about a {who}."}]
        for who in ("fox", "cat", "dog", "owl", "king", "boat")
    ]
    with LLM(threads=2, ctx=512, keep="shared") as llm:
        shared = len(llm.tokenize(RULES))
        alone = [result.text for result in llm.batch(asked, parallel=1, max_tokens=12, seed=1)]
        for parallel in (1, 3, 6):
            llm.engine.reset()
            results = llm.batch(asked, parallel=parallel, max_tokens=12, seed=1)
            assert [result.text for result in results] == alone
            assert sum(result.stats.prefilled_tokens < 40 for result in results) >= 5
            assert shared > 100 > max(result.stats.prefilled_tokens for result in results[1:])
