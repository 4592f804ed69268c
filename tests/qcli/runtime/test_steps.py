"""Steps of several tokens, right guesses and wrong ones: the bits of a step for each, of every architecture."""

from __future__ import annotations

import every_architecture
import numpy as np
import pytest
from streamed_engine import MODEL

from qcli.errors import ContextOverflowError, QcliError
from qcli.gguf.file import GGUFFile
from qcli.runtime.build import STEP_TOKENS
from qcli.runtime.checkpoint import Marks
from qcli.runtime.engine import Engine
from qcli.runtime.prefix_cache import PrefixCache
from quant.jit import Kernel

NAMES = ["qwen3next", *every_architecture.NAMES]
IDS = np.random.default_rng(9).integers(6, 60, 90).tolist()
PROMPT = 20


@pytest.fixture(scope="module")
def path(request, tmp_path_factory):
    if request.param == "qwen3next":
        return MODEL
    return every_architecture.write(request.param, tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture
def load():
    engines = []

    def from_path(path, **options):
        engines.append(Engine.load(GGUFFile.open(path), **{"threads": 1, "ctx": 128, "chunk": 32} | options))
        return engines[-1]

    yield from_path
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def plain(path):
    """An engine that steps token by token; each test begins with it anew."""
    engine = Engine.load(GGUFFile.open(path), threads=1, ctx=128, chunk=32)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def expected(plain):
    """What IDS leave."""
    return one_by_one(plain, IDS)


def one_by_one(engine, ids):
    """Logits after the prompt, and after each token behind it; and the state at the end."""
    engine.reset()
    logits = [engine.prefill(ids[:PROMPT]).copy(), *(engine.step(token).copy() for token in ids[PROMPT:])]
    return np.array(logits), engine.state.recurrent_copy(), [rows.copy() for rows in engine.state.rows(0, len(ids))]


def with_guesses(engine, ids, rng, between=lambda: None):
    """The same by steps of a few tokens, of which the last are wrong."""
    logits = [engine.prefill(ids[:PROMPT]).copy()]
    while engine.position < len(ids):
        at, width = engine.position, int(rng.integers(2, STEP_TOKENS + 1))
        right = min(int(rng.integers(0, width)), len(ids) - at - 1)
        rows = engine.steps([*ids[at : at + 1 + right], *rng.integers(6, 60, width - 1 - right).tolist()])
        assert rows.shape == (width, engine.vocab_size)
        logits += [row.copy() for row in rows[: 1 + right]]
        for _ in range(right):
            engine.keep()
        assert np.array_equal(engine.last_logits, logits[-1])
        between()
    return np.array(logits), engine.state.recurrent_copy(), [rows.copy() for rows in engine.state.rows(0, len(ids))]


def assert_same(found, expected):
    assert np.array_equal(found[0], expected[0])
    for one, other in (*zip(found[1], expected[1], strict=True), *zip(found[2], expected[2], strict=True)):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("path", NAMES, indirect=True)
def test_guesses_leave_no_trace(path, load, plain, expected):
    assert plain.most_tokens == STEP_TOKENS
    for threads in (1, 3):
        assert_same(with_guesses(load(path, threads=threads), IDS, np.random.default_rng(threads)), expected)


@pytest.mark.parametrize("path", NAMES, indirect=True)
def test_wrong_guesses_at_every_position(path, load, plain):
    """As many as a step takes, none of which stays, and then two of which one stays."""
    (logits, states, rows), engine = one_by_one(plain, IDS[:60]), load(path)
    for right in (0, 1):
        engine.reset()
        found = [engine.prefill(IDS[:PROMPT]).copy()]
        while engine.position + right < 60:
            guesses = [(id + 7) % 60 for id in IDS[engine.position : engine.position + STEP_TOKENS]]
            guesses[: 1 + right] = IDS[engine.position : engine.position + 1 + right]
            found += [row.copy() for row in engine.steps(guesses if right == 0 else guesses[:3])[: 1 + right]]
            for _ in range(right):
                engine.keep()
        left = engine.state.recurrent_copy(), [rows.copy() for rows in engine.state.rows(0, 60)]
        assert_same((np.array(found), *left), (logits, states, rows))


@pytest.mark.parametrize("kv_type", ["q8_0", "f32"])
@pytest.mark.parametrize("path", ["qwen3next", "qwen4exp"], indirect=True)
def test_nor_in_other_caches(path, load, kv_type):
    expected = one_by_one(load(path, kv_type=kv_type), IDS)
    assert_same(with_guesses(load(path, kv_type=kv_type), IDS, np.random.default_rng(3)), expected)


@pytest.mark.parametrize("path", ["qwen3next", "qwen4exp"], indirect=True)
def test_nor_in_chunks_that_are_shorter_than_a_step(path, load):
    expected = one_by_one(load(path, chunk=4), IDS)
    assert_same(with_guesses(load(path, chunk=4), IDS, np.random.default_rng(5)), expected)


COPIED = ["qwen3next", "kimi-linear", "lfm2moe", "gptoss", "granitehybrid", "qwen4exp"]


@pytest.mark.parametrize("path", COPIED, indirect=True)
def test_nor_where_the_state_is_copied_and_put_back_in_between(path, load, expected):
    engine = load(path)

    def leave_and_come_back():
        engine.state.rewind(engine.position, engine.state.recurrent_copy())

    assert_same(with_guesses(engine, IDS, np.random.default_rng(4), leave_and_come_back), expected)


@pytest.mark.parametrize("path", ["qwen3next", "qwen4exp"], indirect=True)
def test_nor_where_one_token_is_taken_or_a_prompt_in_between(path, load):
    engine, plain = load(path), load(path)
    for taken in (engine, plain):
        taken.prefill(IDS[:PROMPT])
    for first in range(PROMPT, 80, 12):
        engine.steps(IDS[first : first + 4])
        for _ in range(2):
            engine.keep()
        plain_steps = [plain.step(token).copy() for token in IDS[first : first + 3]]
        assert np.array_equal(engine.last_logits, plain_steps[-1])
        assert np.array_equal(engine.step(IDS[first + 3]), plain.step(IDS[first + 3]))
        engine.steps(IDS[first + 4 : first + 6])
        engine.keep()
        for token in IDS[first + 4 : first + 6]:
            plain.step(token)
        rest = IDS[first + 6 : first + 12]
        assert np.array_equal(engine.prefill(rest), plain.prefill(rest))


@pytest.mark.parametrize("path", ["qwen3next", "qwen4exp"], indirect=True)
def test_a_checkpoint_in_the_midst_of_guesses(path, load):
    engine, plain = load(path), load(path)
    cache, other = PrefixCache(engine), PrefixCache(plain)
    text = IDS[:40]
    for taken in (cache, other):
        taken.prefill(text, marks=Marks(frozenset({30})))
    cache.steps(IDS[40:46])
    for token in IDS[41:44]:
        cache.keep(token)
    for token in IDS[40:44]:
        other.step(token)
    here, there = cache.checkpoint(), other.checkpoint()
    assert (here.ids, here.history) == (there.ids, there.history)
    assert all(map(np.array_equal, here.recurrent, there.recurrent))
    cache.prefill(IDS[:30] + IDS[60:70])  # undone, and forked
    cache.restore(here)
    assert np.array_equal(cache.step(7), other.step(7))


def test_what_cannot_be_kept(load):
    engine = load(MODEL)
    engine.prefill(IDS[:PROMPT])
    with pytest.raises(QcliError):
        engine.keep()
    engine.steps(IDS[:2])
    engine.keep()
    with pytest.raises(QcliError):
        engine.keep()
    engine.steps(IDS[:3])
    engine.step(5)
    with pytest.raises(QcliError):
        engine.keep()
    with pytest.raises(ContextOverflowError):
        load(MODEL, ctx=8).steps(IDS[:9])


def test_no_guess_is_kept_once_the_state_was_copied_in_their_midst(load):
    engine = load(MODEL)
    engine.prefill(IDS[:PROMPT])
    engine.steps(IDS[PROMPT : PROMPT + 4])
    engine.keep()
    engine.state.recurrent_copy()
    with pytest.raises(QcliError):
        engine.keep()


@pytest.mark.parametrize("path", NAMES, indirect=True)
def test_no_kernel_is_left_to_compile_in_the_midst_of_an_answer(path, load, monkeypatch):
    asked: list[Kernel] = []
    monkeypatch.setattr("qcli.host.kernels.prepare", lambda kernels, *_: asked.extend(kernels))
    engine = load(path, mtp=True)
    ready, programs = set(asked), engine.programs
    plans = [programs.steps[0].plan, programs.catch_up.plan]
    if head := engine.draft_head:
        plans += [program.plan for program in (head._few[0], head._many, head._first[0], head._next[0])]
    assert {kernel.name for plan in plans for kernel in plan.kernels} <= {kernel.name for kernel in ready}
