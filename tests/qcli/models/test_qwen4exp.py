"""Qwen4-Exp against a plain twin: a tiny random model, made here, with n-grams, streams and an indexer that must choose."""

from __future__ import annotations

import numpy as np
import pytest
from qwen4exp_model import VOCAB, Shape, expected, write

from qcli.errors import ModelFileError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine

IDS = np.random.default_rng(12).integers(6, VOCAB, 90)
IDS[[20, 21, 50]] = 5  # ends of text
IDS = IDS.tolist()


def load(path, **options):
    return Engine.load(GGUFFile.open(path), **{"threads": 1, "ctx": 128} | options)


def error(logits, wanted):
    return np.abs(logits - wanted).max() / np.abs(wanted).max()


def in_pieces(engine, sizes):
    """The last logits of each piece of the text, and where it ends."""
    engine.reset()
    ends = np.cumsum(sizes)
    rows = [engine.prefill(IDS[end - size : end]).copy() for end, size in zip(ends, sizes, strict=True)]
    return np.array(rows), ends - 1


SHAPES = {
    "sees few blocks": Shape(),
    "sees all": Shape(budget=40),
    "other blocks": Shape(block=7, budget=2, streams=2, multipliers=(3**30, 5**20), sizes=(61, 67), offsets=(0, 61)),
    "5-grams": Shape(multipliers=(3**30, 5**20, 7**15, 11**12, 13**11), ngram_layer=0),
}


@pytest.mark.parametrize("c", SHAPES.values(), ids=SHAPES)
def test_logits_are_those_of_the_twin(c, tmp_path):
    path, wanted = write(c, tmp_path / "model.gguf"), expected(c, IDS)
    for options in ({}, {"threads": 2, "chunk": 32}, {"threads": 2, "chunk": 7}):
        engine = load(path, **options)
        assert error(engine.logits(IDS), wanted) <= 1e-3
        for sizes in ([5, 1, 1, 40, 3, 1, 39], [64, 26], *([] if options else [[1] * 90])):
            logits, ends = in_pieces(engine, sizes)
            assert error(logits, wanted[ends]) <= 1e-3
        engine.close()


def test_the_indexer_matters(tmp_path):
    few, every = expected(SHAPES["sees few blocks"], IDS), expected(SHAPES["sees all"], IDS)
    assert np.array_equal(few[:23], every[:23])  # five blocks, and three tokens after them
    assert error(few, every) > 0.01


def test_caches_of_int8(tmp_path):
    c = SHAPES["sees all"]
    logits = load(write(c, tmp_path / "model.gguf"), kv_type="q8_0").logits(IDS)
    assert error(logits, expected(c, IDS)) <= 0.05


def test_recurrent_states_and_rows_are_all_that_a_text_left(tmp_path):
    engine = load(write(SHAPES["sees few blocks"], tmp_path / "model.gguf"))
    engine.prefill(IDS[:33])
    before, rows = engine.state.recurrent_copy(), engine.state.copy_rows(0, 33)
    once = [engine.step(token).copy() for token in IDS[33:60]]
    engine.reset()
    engine.prefill(IDS[40:])
    rows.put_back(0, 33)
    engine.state.rewind(33, before)
    assert np.array_equal(once, [engine.step(token).copy() for token in IDS[33:60]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hyper_connection.count": 1}, "1 residual streams"),
        ({"ple.head_offsets": np.array([0, 61, 128, 204])}, "more than 276 rows"),
        ({"ple.head_vocab_sizes": np.array([0, 67, 71, 73])}, "hash"),
        ({"ple.layer_multipliers": np.array([1, 2])}, "too short"),
        ({"ple.ngram_size": 17}, "17 tokens"),
        ({"attention.indexer.top_k": 3}, "0 blocks of 4"),
        ({"ple.conv_kernel": 1}, "ple_conv1d"),
        ({"attention.compress_ratios": np.array([0, 0, 0, 257])}, "blocks of 257 positions"),
    ],
)
def test_files_that_contradict_themselves(changes, words, tmp_path):
    with pytest.raises(ModelFileError, match=words):
        load(write(Shape(), tmp_path / "model.gguf", **changes))
