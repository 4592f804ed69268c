"""A text that was decoded beside others is gone on with where it was left, with the bits of one that never left."""

from __future__ import annotations

import every_architecture
import numpy as np
import pytest
from streamed_engine import MODEL

from qcli import LLM
from qcli.gguf.file import GGUFFile
from qcli.runtime.checkpoint import ALONE, NO_MARKS
from qcli.runtime.engine import Engine
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.together import Together

IDS = np.random.default_rng(5).integers(6, 60, 200).tolist()
PROMPTS = [IDS[:40], IDS[50:70], IDS[80:95]]
MORE = IDS[100:120]


@pytest.fixture(params=["qwen3next", "lfm2moe", "deepseek2", "kimi-linear", "qwen4exp"])
def cache(request, tmp_path):
    path = MODEL if request.param == "qwen3next" else every_architecture.write(request.param, tmp_path / "model.gguf")
    engine = Engine.load(GGUFFile.open(path), threads=1, ctx=256, chunk=32)
    yield PrefixCache(engine)
    engine.close()


def alone(cache, prompt, steps=9):
    """A text, its continuation by the largest logit, and the logits after what follows it."""
    cache.engine.reset()
    fresh = PrefixCache(cache.engine)
    text, logits = [*prompt], fresh.prefill(prompt)
    for _ in range(steps):
        text.append(int(logits.argmax()))
        logits = fresh.step(text[-1])
    return text, fresh.prefill([*text, *MORE]).copy()


def beside(cache, prompts, steps=9):
    """The same of several texts together, left afterwards."""
    together = Together(cache, len(prompts))
    answers = []
    for prompt in prompts:
        text = together.text()
        logits = text.prefill(prompt)
        answers.append((text, [*prompt], logits.copy()))
    for _ in range(steps):
        answers = [(text, [*ids, int(logits.argmax())], logits) for text, ids, logits in answers]
        rows = together._sequences.step({text.slot: ids[-1] for text, ids, _ in answers})
        answers = [(text, ids, row.copy()) for (text, ids, _), row in zip(answers, rows, strict=True)]
    for text, _, _ in answers:
        text.leave(whole=True)
    return [ids for _, ids, _ in answers]


def slot_of(sequences, ids):
    return next((slot for slot, text in sequences.known.items() if text.ids == ids), None)


def test_nothing_is_read_again_and_the_bits_are_the_same(cache):
    expected = [alone(cache, prompt) for prompt in PROMPTS]
    cache = PrefixCache(cache.engine)
    cache.engine.reset()
    left = beside(cache, PROMPTS)
    assert left == [text for text, _ in expected]
    for i in (1, 0, 2, 1):
        logits = cache.prefill([*left[i], *MORE])
        assert cache.prefilled == len(MORE)
        np.testing.assert_array_equal(logits, expected[i][1])


def test_what_may_not_show_is_not_gone_on_from(cache):
    cache.engine.reset()
    cache = PrefixCache(cache.engine)
    (left,) = beside(cache, PROMPTS[:1])
    cache.prefill([*left, *MORE], marks=ALONE)
    assert cache.prefilled == len(left) + len(MORE)


def test_the_text_that_was_left_first_goes_first(cache):
    cache.engine.reset()
    cache = PrefixCache(cache.engine)
    left = beside(cache, PROMPTS)
    sequences = cache.others
    slots = [slot_of(sequences, text) for text in left]
    assert None not in slots
    assert cache.rewind([*left[0]], NO_MARKS) < len(left[0])  # after all of it, no logits are known
    cache.prefill([*left[0], *MORE])  # used again
    taken = sequences.join()
    assert taken == slots[1]
    assert [slot_of(sequences, text) for text in left] == [slots[0], None, slots[2]]
    sequences.leave(taken)
    assert cache.rewind([*left[2], 6], NO_MARKS) == len(left[2])
    other = sequences.join(*cache.text)
    assert other == slots[2]  # it goes on from what was there
    sequences.leave(other, whole=False)  # an error came in its midst
    assert [slot_of(sequences, text) for text in left] == [slots[0], None, None]


def test_the_next_turn_of_a_chat_reads_what_is_new():
    with LLM(threads=2, ctx=512) as llm:
        asked = [[{"role": "user", "content": f"Tell me a story about a {who}."}] for who in ("fox", "cat", "dog")]
        first = llm.batch(asked, max_tokens=20, temperature=0)
        more = {"role": "user", "content": "And then?"}
        turns = [
            [*talk, {"role": "assistant", "content": result.text, "ids": result.ids}, more]
            for talk, result in zip(asked, first, strict=True)
        ]
        second = llm.batch(turns, max_tokens=5, temperature=0)
        before = [result.stats.prompt_tokens + result.stats.new_tokens for result in first]
        assert all(result.stats.cached_tokens >= count - 1 for result, count in zip(second, before, strict=True))
        alone = ["".join(llm.chat(turn, max_tokens=5, temperature=0)) for turn in turns]  # with guesses, too
        assert [result.text for result in second] == alone
