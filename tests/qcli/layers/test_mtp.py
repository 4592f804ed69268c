"""The head of multi-token prediction: its logits against those of Transformers, and what files may lack or have besides."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import reference_models
from teacher_forced import teacher_forced
from tiny_model import Tiny

from qcli.errors import ModelFileError, QcliError
from qcli.gguf.file import GGUFFile
from qcli.layers import mtp
from qcli.layers.mtp import mtp_of
from qcli.layers.state import State
from qcli.models import load
from qcli.runtime.engine import Engine

NAMES = ["qwen3next-mtp", "qwen35-mtp"]


def head_logits(path, ids, **options):
    return teacher_forced(path, ids, **options)[1]


def model_of(path, wanted=True):
    state = State(128, mtp=wanted)
    return load(GGUFFile.open(path), state), state


@pytest.fixture(params=NAMES)
def reference(request):
    return reference_models.read(request.param)


@pytest.fixture
def path(reference, tmp_path):
    return reference.write(tmp_path / "model.gguf")


def test_logits(reference, path):
    found = head_logits(path, reference.ids)
    at = reference.positions[reference.positions < 95]
    assert np.abs(found[at] - reference.mtp_logits).max() < 1e-3
    assert found.argmax(axis=1).tolist() == reference.mtp_greedy
    assert np.array_equal(head_logits(path, reference.ids, threads=1), found)


def test_the_embedded_model(storyteller):
    """Before it was quantized, 100 % of these; Q8_0 100 %, Q4_K_M 93 %."""
    with np.load(reference_models.DATA / "storyteller.npz") as reference:
        ids, expected = reference["ids"].tolist(), reference["mtp_greedy"]
    assert (head_logits(storyteller, ids).argmax(axis=1) == expected).mean() > 0.9


def test_nothing_is_read_where_it_is_not_asked_for(path):
    (asked, with_head), (plain, without) = model_of(path), model_of(path, wanted=False)
    assert mtp_of(asked)
    assert mtp_of(plain) is None
    assert with_head.cache_bytes > without.cache_bytes
    assert with_head.experts_total == without.experts_total
    assert with_head.bytes_per_step(5) == without.bytes_per_step(5)
    assert not any(".nextn." in name for name in GGUFFile.open(path).used)


def test_a_model_without_a_head(tmp_path):
    model, _ = model_of(reference_models.read("qwen35moe").write(tmp_path / "model.gguf"))
    assert mtp_of(model) is None


def test_a_norm_and_matrices_of_its_own(reference, path, tmp_path):
    """shared_head_norm is that of the model where there is none; embed_tokens and shared_head_head may be there."""
    ids, tiny = reference.ids[:20], Tiny.read(path)
    plain = head_logits(path, ids)
    for own, of_model in (("embed_tokens", "token_embd"), ("shared_head_head", "output")):
        kind, data = tiny.tensors[f"{of_model}.weight"]
        tiny.put(f"blk.5.nextn.{own}.weight", kind, data[::-1].copy(), 64)
    other = head_logits(tiny.write(tmp_path / "own.gguf"), [*ids[:1], *(511 - id for id in ids[1:])])
    assert not np.array_equal(other[:, ::-1], plain)  # the model sees other tokens, but the first
    assert np.array_equal(other[0, ::-1], plain[0])
    tiny = Tiny.read(path)
    _, norm, _ = tiny.take("blk.5.nextn.shared_head_norm.weight")
    assert not np.array_equal(head_logits(tiny.write(tmp_path / "own.gguf"), ids), plain)
    tiny.put("blk.5.nextn.shared_head_norm.weight", "F32", tiny.tensors["output_norm.weight"][1], 64)
    same = head_logits(tiny.write(tmp_path / "same.gguf"), ids)
    assert np.array_equal(head_logits(tmp_path / "own.gguf", ids), same)
    assert norm.shape == tiny.tensors["output_norm.weight"][1].shape


@pytest.mark.parametrize("name", ["nextn.enorm", "nextn.hnorm", "attn_q", "attn_k_norm", "post_attention_norm"])
def test_a_part_that_is_missing_or_of_another_shape(path, tmp_path, name):
    tiny = Tiny.read(path)
    kind, data, columns = tiny.take(f"blk.5.{name}.weight")
    with pytest.raises(ModelFileError, match=rf'"blk\.5\.{name}\.weight" is missing'):
        model_of(tiny.write(tmp_path / "less.gguf"))
    tiny.put(f"blk.5.{name}.weight", kind, data[..., : data.shape[-1] // 2], columns // 2)
    with pytest.raises(ModelFileError, match=rf"blk\.5\.{name}"):
        model_of(tiny.write(tmp_path / "half.gguf"))


def assert_clear(error):
    """One line of what happened, and what to do."""
    assert error.message
    assert error.hint
    assert "\n" not in error.message


def test_every_number_of_the_header_may_be_wrong(path, tmp_path):
    """A file is refused in one line, or its head guesses something."""
    tiny = Tiny.read(path)
    arch, write = str(tiny.keys["general.architecture"]), tiny.writer()
    whole = [key for key, value in tiny.keys.items() if key.startswith(f"{arch}.") and type(value) is int]
    assert f"{arch}.nextn_predict_layers" in whole
    for key in whole:
        for other in (0, 1, 2, 3, 7, 64, 2**31, 2**62):
            file = GGUFFile.open(write(tmp_path / "model.gguf", tiny.keys | {key: other}))
            try:
                with closing(Engine.load(file, threads=1, chunk=4, mtp=True)) as engine:
                    engine.prefill([1, 2, 3])
                    assert all(0 <= id < engine.vocab_size for id in engine.draft(5, 3))
            except QcliError as error:
                assert_clear(error)


@pytest.mark.parametrize(("most", "rows"), [(512, 512), (256, 512), (255, 255), (100, 100)])
def test_guesses_come_from_the_first_rows_of_a_large_vocabulary(monkeypatch, path, most, rows):
    monkeypatch.setattr(mtp, "MOST_GUESSED", most)
    head = mtp_of(model_of(path)[0])
    assert head.guessed.rows == rows
    assert np.array_equal(head.guessed.data, head.shared_head.data[:rows])
