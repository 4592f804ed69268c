"""DeepSeek-V2 and V3, and GLM-4.7-Flash by their name, against a plain twin: tiny random models, made here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from deepseek2_model import LATENT, LAYERS, MODELS, TURNING, VOCAB, Model

from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


IDS = np.random.default_rng(9).integers(0, VOCAB, 70).tolist()


def load(path, **options):
    return Engine.load(GGUFFile.open(path), **{"threads": 1, "ctx": 128} | options)


def found(engine):
    """Logits by prefill, and token by token."""
    together = engine.logits(IDS)
    engine.reset()
    one_by_one = np.array([engine.step(token).copy() for token in IDS])
    engine.close()
    return together, one_by_one


def error(logits, expected):
    return np.abs(logits - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("absorbed", [True, False])
def test_logits_are_those_of_the_twin(model, absorbed, tmp_path):
    model = replace(model, absorbed=absorbed)
    path, expected = model.write(tmp_path / "model.gguf"), model.expected(IDS)
    for options in ({}, {"threads": 2, "chunk": 7}):
        for logits in found(load(path, **options)):
            assert error(logits, expected) <= 1e-4
    exact = model.expected(IDS, rounded=False)
    for logits in found(load(path, kv_type="f32", threads=2)):
        assert error(logits, exact) <= 1e-5


@pytest.mark.parametrize("absorbed", [True, False])
def test_caches_of_int8(absorbed, tmp_path):
    model = replace(MODELS["V2-Lite"], absorbed=absorbed)
    expected = model.expected(IDS)
    for logits in found(load(model.write(tmp_path / "model.gguf"), kv_type="q8_0")):
        assert np.linalg.norm(logits - expected) <= 0.05 * np.linalg.norm(expected)


def test_what_a_token_reads_of_the_cache(tmp_path):
    """The latents are keys and values at once: half as many bytes as of heads of their own, and more."""
    state = load(MODELS["V3"].write(tmp_path / "model.gguf")).state
    assert state.bytes_per_step(9) == LAYERS * 10 * (2 * (LATENT + TURNING) + 8)


def test_files_that_do_not_say_how_they_score(tmp_path):
    """Where there is a bias, scores are sigmoids."""
    for name in ("V3", "V2"):
        model = MODELS[name]
        path = model.write(tmp_path / "model.gguf")
        before = load(path).logits(IDS)
        silent = replace(model, keys={"expert_gating_func": 0})
        assert np.array_equal(load(silent.write(path)).logits(IDS), before)


def test_files_that_contradict_themselves(tmp_path):
    for keys, words in (
        ({"attention.key_length_mla": TURNING}, "32 rotary dimensions"),
        ({"expert_group_count": 3}, "groups"),
        ({"attention.kv_lora_rank": LATENT + 16}, "attn_kv_a_mqa"),
    ):
        with pytest.raises(ModelFileError, match=words):
            load(replace(MODELS["V3"], keys=keys).write(tmp_path / "model.gguf"))
    with pytest.raises(UnsupportedModelError, match="temperature"):
        load(Model(keys={"attention.temperature_scale": 0.1}).write(tmp_path / "model.gguf"))
