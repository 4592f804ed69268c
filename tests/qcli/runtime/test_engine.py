"""The engine on a tiny model and on the embedded one: one answer, whatever the threads, chunks and turns taken."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
from tiny_model import DATA, PLAIN

from qcli.errors import ContextOverflowError, QcliError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.text.tokenizer import Tokenizer
from quant import cpu

IDS = np.load(DATA / "qwen3next.npz")["ids"].tolist()  # 96
EXPERTS = 4 * 16  # of the tiny model: layers, experts in each
CHOSEN = 4


@pytest.fixture
def load():
    """Load an engine; it is closed after the test."""
    engines = []

    def from_path(path=PLAIN, **options):
        engines.append(Engine.load(GGUFFile.open(path), **{"threads": 1, "ctx": 128, **options}))
        return engines[-1]

    yield from_path
    for engine in engines:
        engine.close()


def by_steps(engine, ids):
    engine.reset()
    return np.array([engine.step(token).copy() for token in ids])


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_steps_prefill_and_all_positions_agree(load):
    engine = load()
    every = engine.logits(IDS)
    assert every.shape == (96, engine.vocab_size)
    assert error(by_steps(engine, IDS), every) < 1e-5
    for length in (1, 2, 7, 8, 9, 63, 64, 65, 96):
        engine.reset()
        assert error(engine.prefill(IDS[:length]), every[length - 1]) < 2e-5
        assert engine.position == length


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_the_number_of_threads_changes_no_bit(load, threads):
    one, more = load(), load(threads=threads)
    assert np.array_equal(more.logits(IDS), one.logits(IDS))
    assert np.array_equal(by_steps(more, IDS[:20]), by_steps(one, IDS[:20]))
    assert np.array_equal(more.prefill(IDS[20:]), one.prefill(IDS[20:]))


def test_the_number_of_threads_changes_no_bit_of_quantized_weights(load, storyteller):
    ids = np.load(DATA / "storyteller.npz")["ids"].tolist()
    one = load(storyteller)
    every, steps = one.logits(ids[:30]), by_steps(one, ids[:6])
    for threads in (2, 3):
        more = load(storyteller, threads=threads)
        assert np.array_equal(more.logits(ids[:30]), every)
        assert np.array_equal(by_steps(more, ids[:6]), steps)


@pytest.mark.parametrize("chunk", [2, 7, 64, 95])
def test_borders_of_chunks_do_not_show(load, chunk):
    assert error(load(chunk=chunk).logits(IDS), load(chunk=512).logits(IDS)) < 1e-5


@pytest.mark.parametrize("parts", [(1, 95), (95, 1), (1, 1, 94), (64, 32), (30, 1, 1, 64)])
def test_a_text_may_come_in_parts(load, parts):
    engine = load()
    whole, first = engine.prefill(IDS).copy(), 0
    engine.reset()
    for size in parts:
        logits = engine.prefill(IDS[first : first + size])
        first += size
    assert error(logits, whole) < 1e-5


def test_a_position_is_gone_back_to_bit_by_bit(load):
    engine = load()
    engine.prefill(IDS[:50])
    before = engine.state.recurrent_copy()
    expected = [engine.prefill(IDS[50:60]).copy(), *(engine.step(token).copy() for token in IDS[60:70])]
    engine.prefill(IDS[70:])
    for _ in range(2):
        engine.state.rewind(50, before)
        assert engine.position == 50
        found = [engine.prefill(IDS[50:60]).copy(), *(engine.step(token).copy() for token in IDS[60:70])]
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("first", [0, 5, 32, 40])
def test_where_a_text_is_taken_up_does_not_show_in_whole_chunks(load, first):
    whole, parts = load(chunk=32), load(chunk=32)
    expected = [whole.prefill(IDS[:first]).copy() if first else None, whole.prefill(IDS[first:96]).copy()]
    found = [parts.prefill(IDS[:first]).copy() if first else None]
    for begin, end in ((first, 64), (64, 96)):
        found[1:] = [parts.prefill(IDS[begin:end]).copy()]
    assert np.array_equal(found[-1], expected[-1])


def test_ctrl_c_leaves_the_state_whole(load):
    engine = load(chunk=16)
    engine.prefill(IDS[:20])

    def interrupt(stage, fraction):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        engine.prefill(IDS[20:60], interrupt)
    assert engine.position == 32
    assert engine.last_logits is None
    found = engine.prefill(IDS[32:60]).copy()
    assert np.array_equal(found, engine.last_logits)
    engine.reset()
    engine.prefill(IDS[:20])
    assert np.array_equal(engine.prefill(IDS[20:60]), found)


def test_ctrl_c_within_a_long_chunk_undoes_it(load, monkeypatch):
    monkeypatch.setattr("qcli.runtime.engine._FINISHED", 8)
    engine = load(chunk=64)
    engine.prefill(IDS[:5])

    def interrupt(stage, fraction):
        if fraction > 0.2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        engine.prefill(IDS[5:60], interrupt)
    assert engine.position == 5
    found = engine.prefill(IDS[5:60]).copy()
    engine.reset()
    engine.prefill(IDS[:5])
    assert np.array_equal(engine.prefill(IDS[5:60]), found)


def test_telling_how_far_a_prompt_is_changes_no_bit(load):
    engine = load(threads=2, chunk=16)
    silent = engine.prefill(IDS[:40]).copy()
    engine.reset()
    assert np.array_equal(engine.prefill(IDS[:40], lambda stage, fraction: None), silent)


def test_reset_forgets_everything(load):
    engine = load()
    first = engine.prefill(IDS).copy()
    engine.reset()
    assert engine.position == 0
    assert np.array_equal(engine.prefill(IDS), first)


def test_all_positions_begin_with_an_empty_text(load):
    engine = load()
    every = engine.logits(IDS[:20])
    engine.prefill(IDS[20:40])
    assert np.array_equal(engine.logits(IDS[:20]), every)
    assert engine.position == 20


def test_the_context_can_be_filled_and_not_overfilled(load):
    engine = load(ctx=16)
    engine.prefill(IDS[:15])
    last = engine.step(IDS[15]).copy()
    for overflow in (lambda: engine.step(1), lambda: engine.prefill([1]), lambda: engine.prefill([1, 2])):
        with pytest.raises(ContextOverflowError, match=r"16 \+ .* do not fit into a context of 16") as caught:
            overflow()
        assert "--ctx 1" in caught.value.hint
    assert engine.position == 16
    engine.reset()
    with pytest.raises(ContextOverflowError):
        engine.prefill(IDS[:17])
    assert engine.position == 0
    with pytest.raises(ContextOverflowError):
        engine.logits(IDS[:17])
    assert np.array_equal(load(ctx=17).prefill(IDS[:16]), engine.prefill(IDS[:16]))
    assert error(last, engine.logits(IDS[:16])[15]) < 1e-5


def test_keys_and_values_in_half_the_memory(load):
    full, half = load(), load(kv_type="q8_0")
    every = half.logits(IDS)
    assert error(every, full.logits(IDS)) < 0.02
    assert error(by_steps(half, IDS), every) < 2e-3  # a value beside a rounding border may fall to either side
    position, before = half.position, half.state.recurrent_copy()
    expected = half.step(5).copy()
    half.state.rewind(position, before)
    assert np.array_equal(half.step(5), expected)
    with pytest.raises(UsageError, match='"q4_0"') as caught:
        load(kv_type="q4_0")
    assert "q8_0" in caught.value.hint


def test_more_context_than_the_model_was_made_for(load):
    with pytest.raises(ContextOverflowError, match="512 tokens") as caught:
        load(ctx=513)
    assert "--ctx 512" in caught.value.hint
    assert load(ctx=None).ctx == 512


def test_a_processor_that_cannot_run_it(load, monkeypatch):
    monkeypatch.setattr(cpu, "missing", lambda: "F16C")
    with pytest.raises(QcliError, match="lacks F16C") as caught:
        load()
    assert caught.value.hint


def test_experts_are_counted(load):
    engine = load()
    assert engine.experts_total == EXPERTS
    assert engine.state.experts_touched() == 0
    engine.step(3)
    assert engine.state.experts_touched() == 4 * CHOSEN
    engine.reset()
    engine.step(3)
    assert engine.state.experts_touched() == 4 * CHOSEN
    engine.prefill(IDS)
    assert 4 * CHOSEN < engine.state.experts_touched() <= EXPERTS
    engine.state.clear_touched()
    assert engine.state.experts_touched() == 0


def test_bytes_of_weights_that_a_step_reads(load):
    """Everything but three quarters of the experts, and one row of the embedding; vectors are not counted."""
    engine = load()
    with GGUFFile.open(PLAIN) as file:
        sizes = {name: t.n_bytes for name, t in file.tensors.items() if len(t.shape) > 1 and "conv1d" not in name}
    routed = sum(size for name, size in sizes.items() if "_exps" in name)
    table = sizes["token_embd.weight"]
    expected = sum(sizes.values()) - routed + routed * CHOSEN / 16 - table + table / engine.vocab_size
    assert engine.weight_bytes_per_step() == expected


def test_progress_is_told_from_start_to_end(load):
    told = []
    engine = load(progress=lambda stage, part: told.append((stage, part)), chunk=10)
    assert {stage for stage, _ in told} <= {"compiling kernels (once)", "loading weights"}
    told.clear()
    engine.prefill(IDS[:25], lambda stage, part: told.append((stage, part)))
    assert {stage for stage, _ in told} == {"reading 25 tokens"}
    parts = [part for _, part in told]
    assert parts == sorted(set(parts))  # more than one in each chunk of 10
    assert {10 / 25, 20 / 25, 1.0} < set(parts)


def test_closing_ends_the_threads(load):
    before = threading.active_count()
    engine = load(threads=3)
    assert threading.active_count() == before + 2
    engine.close()
    assert threading.active_count() == before


def test_two_engines_do_not_disturb_each_other(load):
    one, two = load(), load(threads=2)
    expected = by_steps(one, IDS[:10])
    one.reset()
    two.prefill(IDS[50:])
    for token, row in zip(IDS[:10], expected, strict=True):
        assert np.array_equal(one.step(token), row)
        two.step(token)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_the_embedded_model_is_near_what_it_was_before_it_was_quantized(load, storyteller):
    """Mean KL(reference || ours): 0.0553 by llama.cpp."""
    with np.load(DATA / "storyteller.npz") as reference:
        ids, expected = reference["ids"].tolist(), log_softmax(reference["logits"])
    engine = load(storyteller)
    for found in (engine.logits(ids), by_steps(engine, ids)):
        kl = (np.exp(expected) * (expected - log_softmax(found))).sum(axis=-1).mean()
        assert kl <= 0.056


# As far as each choice is by 0.5 or more: what rounds differently elsewhere shall not decide.
STORIES = {
    "Once upon a time": ", there was a little girl named Lily. She loved",
    "One day, a little girl named Lily": " went to the park. She saw a big tree with a swing.",
}


@pytest.mark.parametrize(("prompt", "expected"), STORIES.items())
def test_the_embedded_model_tells_its_story(load, storyteller, prompt, expected):
    tokenizer, engine = Tokenizer.from_gguf(storyteller), load(storyteller, threads=2)
    story: list[int] = []
    logits = engine.prefill(tokenizer.encode(prompt))
    while len(tokenizer.decode(story)) < len(expected):
        story.append(int(logits.argmax()))
        logits = engine.step(story[-1])
    assert tokenizer.decode(story) == expected
