"""Guesses by the head of multi-token prediction: what they are, and that no text and no state depends on them."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import reference_models
from reference.mtp import Head
from tiny_model import PLAIN, Tiny

from qcli.gguf.file import GGUFFile
from qcli.runtime import saved_text
from qcli.runtime.build import STEP_TOKENS
from qcli.runtime.checkpoint import Checkpoint
from qcli.runtime.engine import Engine
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.state_store import StateStore, store_for
from qcli.streaming import budget

NAMES = ["qwen3next-mtp", "qwen35-mtp"]


@pytest.fixture(scope="module", params=NAMES)
def reference(request):
    return reference_models.read(request.param)


@pytest.fixture(scope="module")
def path(reference, tmp_path_factory):
    return reference.write(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture
def load(path):
    """Load an engine; it is closed after the test."""
    engines = []

    def new(path=path, **options):
        engines.append(
            Engine.load(GGUFFile.open(path), **{"threads": 1, "ctx": 256, "chunk": 32, "mtp": True} | options)
        )
        return engines[-1]

    yield new
    for engine in engines:
        engine.close()


def firsts(engine, ids, before=1):
    """The first guess at each position of a text, given the next id, after a prompt of so many."""
    engine.reset()
    engine.prefill(ids[:before])
    found = []
    for id in ids[before:]:
        found += engine.draft(id, 1)
        engine.step(id)
    return found


@pytest.mark.parametrize("before", [1, 2, 40])
def test_the_first_guess_is_the_head_s_first_choice(load, reference, before):
    assert firsts(load(), reference.ids, before) == reference.mtp_greedy[before - 1 :]


def test_guesses_after_a_while_without_any(load, reference):
    """Tokens that the head has not seen are caught up with, few of them or many."""
    engine = load()
    engine.prefill(reference.ids[:10])
    for position in range(10, 95):
        if position in (11, 14, 15, 31, 90, 94):
            assert engine.draft(reference.ids[position], 1) == [reference.mtp_greedy[position - 1]]
        engine.step(reference.ids[position])


@pytest.mark.parametrize("length", [1, 5, 33, 80])
def test_chained_guesses_are_those_of_plain_numpy(load, reference, path, length):
    engine, ids = load(chunk=128), reference.ids
    engine.prefill([*ids[:length]]) if length > 1 else engine.step(ids[0])
    program = engine.programs.prompt if length > 1 else engine.programs.step
    rows = engine.programs.before_head[program][:length].copy()
    guesses = engine.draft(ids[length], 4)
    assert len(guesses) == 4
    if engine.experts_total == 0:
        assert guesses == Head(Tiny.read(path), "qwen35").guesses(rows, ids[1 : length + 1], 4)
    for count in (1, 2, 3):
        assert engine.draft(ids[length], count) == guesses[:count]


def decode(engine, prompt, count, guess=None):
    """A greedy text by steps of several tokens: logits after each token, and how many guesses came true."""
    rows, right, text = [engine.prefill(prompt).copy()], 0, list(prompt)
    while len(text) < len(prompt) + count:
        token = int(rows[-1].argmax())
        guesses = guess(text, token) if guess else []
        logits = engine.steps([token, *guesses]).copy() if guesses else engine.step(token).copy()[None]
        text.append(token)
        rows.append(logits[0])
        for id, row in zip(guesses, logits[1:], strict=True):
            if id != int(rows[-1].argmax()):
                break
            engine.keep()
            text.append(id)
            rows.append(row)
            right += 1
    return np.array(rows[: count + 1]), text[: len(prompt) + count], right


@pytest.mark.parametrize("depth", [1, 2, 4, STEP_TOKENS - 1])
def test_no_bit_of_a_text_depends_on_guesses(load, reference, depth):
    plain, drafting = load(mtp=False), load()
    expected, text, _ = decode(plain, reference.ids[:30], 60)
    found, same, _ = decode(drafting, reference.ids[:30], 60, lambda _, token: drafting.draft(token, depth))
    assert same == text
    assert np.array_equal(found, expected)


def test_guesses_that_come_true_and_some_that_do_not(load, reference):
    """By an oracle that errs now and then, beside which the head is asked, too."""
    plain, drafting = load(mtp=False), load()
    expected, text, _ = decode(plain, reference.ids[:30], 80)
    asked, seen = np.random.default_rng(4), {}

    def oracle(before, token):
        seen[len(before)] = drafting.draft(token, 3)
        known = text[len(before) + 1 :][: asked.integers(0, STEP_TOKENS)]
        return [id if asked.random() < 0.8 else (id + 1) % 512 for id in known]

    found, same, right = decode(drafting, reference.ids[:30], 80, oracle)
    assert same == text
    assert np.array_equal(found, expected)
    assert right > 20
    for position, guesses in seen.items():  # as of one that has read the text as a prompt
        drafting.reset()
        drafting.prefill(text[:position])
        assert drafting.draft(text[position], 3) == guesses


def test_the_number_of_threads_changes_no_guess(load, reference):
    one, three = load(), load(threads=3)
    guesses: list[list[list[int]]] = []
    for engine in (one, three):
        engine.prefill(reference.ids[:50])
        guesses.append([])
        for id in reference.ids[50:90]:
            guesses[-1].append(engine.draft(id, 4))
            engine.step(id)
    assert guesses[0] == guesses[1]
    assert np.array_equal(one.state.recurrent_copy()[-1], three.state.recurrent_copy()[-1])
    for mine, other in zip(one.state.rows(0, 90), three.state.rows(0, 90), strict=True):
        assert np.array_equal(mine, other)


def test_a_token_that_was_asked_about_but_did_not_come(load, reference):
    """The head sees the one that came, and to the bit as if nobody had asked."""
    asked, plain = load(), load()
    for engine in (asked, plain):
        engine.prefill(reference.ids[:20])
        for id in reference.ids[20:30]:
            engine.draft((id + 1) % 512 if engine is asked else id, 3)
            engine.step(id)
        engine.state.recurrent_copy()
    for mine, other in zip(asked.state.rows(0, 30), plain.state.rows(0, 30), strict=True):
        assert np.array_equal(mine, other)


def test_the_end_of_the_context_and_an_empty_text(load, reference):
    engine = load(ctx=40)
    assert engine.draft(5, 4) == []
    engine.prefill(reference.ids[:36])
    for id, room in zip(reference.ids[36:40], (3, 2, 1, 0), strict=True):
        assert len(engine.draft(id, 4)) == room
        engine.step(id)
    assert engine.draft(5, 4) == []


def test_where_there_is_no_head(load):
    for engine in (load(mtp=False), load(PLAIN)):
        assert engine.draft_head is None
        engine.prefill([1, 2, 3])
        assert engine.draft(4, 2) == []


def test_a_model_whose_experts_are_streamed_has_one_too(monkeypatch, tmp_path):
    path = reference_models.read("qwen3next-mtp").write(tmp_path / "model.gguf")
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    engine = Engine.load(GGUFFile.open(path), threads=1, ctx=64, chunk=32, mtp=True)
    assert engine.expert_loader
    assert engine.draft_head
    engine.close()


def test_ctrl_c_in_the_midst_of_a_prompt(load, reference, monkeypatch):
    """The chunk is undone, in the head, too."""
    monkeypatch.setattr("qcli.runtime.engine._FINISHED", 8)
    engine = load(chunk=64)
    engine.prefill(reference.ids[:20])

    def interrupt(stage, fraction):
        if fraction > 0.5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        engine.prefill(reference.ids[20:90], interrupt)
    assert engine.position == 20
    for position in range(20, 60):
        assert engine.draft(reference.ids[position], 1) == [reference.mtp_greedy[position - 1]]
        engine.step(reference.ids[position])


def cache_of(engine, folder):
    empty = Checkpoint((), engine.state.recurrent_copy(), np.zeros(engine.vocab_size, np.float32))
    return PrefixCache(engine, StateStore(folder, 1 << 30, empty))


def test_undone_forked_restored_and_from_the_disk(load, reference, tmp_path):
    """Wherever a text is gone back to, or read from the disk, its guesses and rows are those of one that never left."""
    first, ids = cache_of(load(), tmp_path / "states"), reference.ids
    one, other = ids[:40], [*ids[:25], *ids[50:70]]

    def read(cache, text, step):
        cache.prefill(text[:step])
        for id in text[step:]:
            cache.engine.draft(id, 2)
            cache.step(id)
        return cache.checkpoint(on_disk=True)

    def rows(cache, end):
        return [part.copy() for part in cache.engine.state.rows(0, end)]

    def same(cache, expected):
        assert all(np.array_equal(*pair) for pair in zip(rows(cache, cache.engine.position), expected[0], strict=True))
        assert cache.engine.draft(7, 4) == expected[1]

    read(first, ids[:25], 20)
    kept_one, after_one = read(first, one, 30), (rows(first, 40), first.engine.draft(7, 4))
    read(first, ids[:25], 25)
    kept_other, after_other = read(first, other, 30), (rows(first, 45), first.engine.draft(7, 4))
    assert after_one[1] != after_other[1]
    for kept, expected in ((kept_one, after_one), (kept_other, after_other), (kept_one, after_one)):
        first.restore(kept)
        same(first, expected)
    first.store.wait()
    second = cache_of(load(), tmp_path / "states")
    for text, expected in ((other, after_other), (one, after_one)):
        assert second.rewind(text) == len(text)
        same(second, expected)


def test_a_state_that_was_kept_without_the_head_is_of_no_use_with_it(load, path, monkeypatch, tmp_path):
    monkeypatch.setenv("QCLI_CACHE_DIR", str(tmp_path))
    folders = {store_for(GGUFFile.open(path), load(mtp=mtp).state, 512).folder for mtp in (True, False)}
    assert len(folders) == 2


def test_a_text_in_a_file(load, reference, path, tmp_path):
    file, engine = GGUFFile.open(path), load()
    cache = cache_of(engine, tmp_path / "states")
    cache.prefill(reference.ids[:50])
    guesses = engine.draft(9, 3)
    saved_text.save(tmp_path / "text.state", cache.checkpoint(), engine.state, file, overwrite=False)
    other = cache_of(load(), tmp_path / "others")
    other.adopt(lambda: saved_text.load(tmp_path / "text.state", 512, other.engine.state, file))
    assert other.engine.draft(9, 3) == guesses
