"""Families of grouped-query attention and experts against a plain twin: tiny random models, made here.

The twin is within 3e-6 of float32 references of each family (Transformers, llama.cpp).
"""

from __future__ import annotations

import numpy as np
import pytest
from gqa_models import MODELS, VOCAB
from streamed_engine import streamed

from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine

IDS = np.random.default_rng(9).integers(0, VOCAB, 70).tolist()


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]


@pytest.fixture(scope="module")
def exact(model):
    """Logits of IDS in float64, [tokens, vocab]."""
    return model.expected(IDS, rounded=False)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return model.write(tmp_path_factory.mktemp("model") / "model.gguf")


def load(path, **options):
    return Engine.load(GGUFFile.open(path), **{"threads": 1, "ctx": 128, "chunk": 32} | options)


def by_pieces(engine, size):
    """The logits of the last of every `size` ids, which are taken together."""
    engine.reset()
    return np.stack([engine.prefill(IDS[i : i + size]).copy() for i in range(0, len(IDS), size)])


def error(logits, expected):
    """Of the token that is furthest off."""
    return (np.abs(logits - expected).max(axis=1) / np.abs(expected).max(axis=1)).max()


def test_logits_and_greedy_text_with_caches_of_float32(model, path, exact):
    engine = load(path, kv_type="f32")
    assert error(engine.logits(IDS), exact) < 1e-5
    for size in (1, 5, 14):
        assert error(by_pieces(engine, size), exact[size - 1 :: size]) < 1e-5
    logits, text = by_pieces(engine, 70)[0], list(IDS)
    for _ in range(8):
        text.append(int(logits.argmax()))
        logits = engine.step(text[-1])
    engine.close()
    assert text[70:] == model.expected(text, rounded=False)[69:-1].argmax(axis=1).tolist()


def test_caches_of_float16_only_round(model, path, exact):
    """Nearly all of the error is that of rounding keys and values, as the twin rounds them."""
    engine = load(path)
    found, rounded = engine.logits(IDS), model.expected(IDS, rounded=True)
    engine.close()
    off = np.linalg.norm(found - exact)
    assert 2 * np.linalg.norm(found - rounded) < off < 1e-3 * np.linalg.norm(exact)


def test_bits_do_not_depend_on_threads_nor_on_where_experts_are(path, monkeypatch):
    """Streamed with four slots a layer, for eight experts or more."""
    found = []
    for engine in (*(load(path, threads=count) for count in (1, 2, 3)), streamed(monkeypatch, 4, path, chunk=32)):
        found.append([engine.prefill(IDS).copy(), *(engine.step(id).copy() for id in IDS[:20])])
        engine.close()
    assert all(np.array_equal(other, found[0]) for other in found[1:])
