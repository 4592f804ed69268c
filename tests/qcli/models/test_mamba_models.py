"""Models with Mamba 2 layers: bits, the forms that files of them come in, and files that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import reference_models
from streamed_engine import logits_of, streamed
from tiny_model import Tiny, f32

from qcli.errors import ModelFileError, QcliError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine

NAMES = ["granitehybrid", "nemotron_h", "nemotron_h_moe", "nemotron_h_moe-latent"]


def given(name, folder) -> Tiny:
    """A tiny model, to change; `folder / "given.gguf"` is as it was."""
    return Tiny.read(reference_models.read(name).write(folder / "given.gguf"))


def load(path, threads=1) -> Engine:
    return Engine.load(GGUFFile.open(path), threads=threads, ctx=256, chunk=64)


def found(path, threads=1):
    engine = load(path, threads)
    logits = logits_of(engine)
    engine.close()
    return logits


def equal(some, others) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_no_bit_depends_on_threads_or_streaming(name, monkeypatch, tmp_path):
    path = reference_models.read(name).write(tmp_path / "model.gguf")
    expected = found(path)
    assert equal(found(path, 2), expected)
    assert equal(found(path, 3), expected)
    if name != "nemotron_h":  # which has no experts
        engine = streamed(monkeypatch, 5, path)
        assert equal(logits_of(engine), expected)
        assert engine.expert_loader.traffic.bytes_read > 0
        engine.close()


@pytest.mark.parametrize(("name", "matrices", "latent"), [("granitehybrid", 3, 64), ("nemotron_h_moe-latent", 2, 32)])
def test_streaming_reads_no_gate_where_there_is_none(name, matrices, latent, monkeypatch, tmp_path):
    engine = streamed(monkeypatch, 5, reference_models.read(name).write(tmp_path / "model.gguf"))
    layers = engine.expert_loader.cache.layers.values()
    assert {layer.expert_bytes for layer in layers} == {matrices * 32 * latent * 2}
    engine.close()


@pytest.mark.parametrize("name", ["granitehybrid", "nemotron_h"])
def test_dimensions_of_one_and_of_groups_may_be_left_out(name, tmp_path):
    tiny = given(name, tmp_path)
    for tensor in [tensor for tensor in tiny.tensors if tensor.endswith(("ssm_a", "ssm_d", "ssm_norm.weight"))]:
        kind, data, _ = tiny.take(tensor)
        tiny.put(tensor, kind, data.reshape(-1), data.size // 4)
    assert equal(found(tiny.write(tmp_path / "model.gguf")), found(tmp_path / "given.gguf"))


def test_granite_4_without_experts_has_one_that_is_always_chosen(tmp_path):
    """Its scale multiplies what a dense network adds, too."""
    sparse, arch = given("granitehybrid", tmp_path), "granitehybrid"
    sparse.keys |= {f"{arch}.expert_count": 1, f"{arch}.expert_used_count": 1}
    del sparse.keys[f"{arch}.expert_shared_feed_forward_length"]
    for name in [name for name in sparse.tensors if "_exps" in name or "ffn_gate_inp" in name]:
        kind, data, columns = sparse.take(name)
        sparse.put(name, kind, data[:1], columns)
    for name in [name for name in sparse.tensors if "_shexp" in name]:
        sparse.take(name)
    dense = Tiny({key: value for key, value in sparse.keys.items() if "expert" not in key}, {}, {})
    for name, (kind, data) in sparse.tensors.items():
        if "ffn_gate_inp" not in name:
            dense.put(name.replace("_exps", ""), kind, data[0] if "_exps" in name else data, sparse.columns[name])
    expected = found(sparse.write(tmp_path / "sparse.gguf"))
    assert equal(found(dense.write(tmp_path / "dense.gguf")), expected)


def test_some_layers_of_a_model_with_experts_may_be_dense(tmp_path):
    """A Nemotron-H all of whose feed-forward layers are."""
    tiny = given("nemotron_h", tmp_path)
    keys = {key.replace("nemotron_h.", "nemotron_h_moe."): value for key, value in tiny.keys.items()}
    tiny.keys = keys | {"general.architecture": "nemotron_h_moe"}
    assert equal(found(tiny.write(tmp_path / "model.gguf")), found(tmp_path / "given.gguf"))


def test_granite_4_with_positions_is_another_model(tmp_path):
    tiny = given("granitehybrid", tmp_path)
    tiny.keys["granitehybrid.rope.scaling.finetuned"] = True
    assert not equal(found(tiny.write(tmp_path / "model.gguf")), found(tmp_path / "given.gguf"))


def test_a_state_that_would_grow(tmp_path):
    tiny = given("nemotron_h", tmp_path)
    kind, data, columns = tiny.take("blk.2.ssm_a")
    tiny.put("blk.2.ssm_a", kind, f32(-data.view(np.float32)), columns)
    with pytest.raises(ModelFileError, match=r"ssm_a.* would grow"):
        load(tiny.write(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    "keys", [{"ssm.time_step_rank": 7}, {"ssm.group_count": 3}, {"ssm.time_step_rank": 16}, {"ssm.state_size": 8}]
)
def test_heads_and_groups_that_do_not_fit(keys, tmp_path):
    tiny = given("nemotron_h", tmp_path)
    tiny.keys |= {f"nemotron_h.{key}": value for key, value in keys.items()}
    with pytest.raises(QcliError) as error:
        load(tiny.write(tmp_path / "model.gguf"))
    assert "\n" not in error.value.message
