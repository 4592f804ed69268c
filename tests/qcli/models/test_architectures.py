"""Every architecture against Transformers: logits of a whole text, by steps and in small chunks, and greedy text."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import reference_models
from tiny_model import Tiny

from qcli import models
from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine


@pytest.fixture(scope="module", params=reference_models.NAMES)
def reference(request):
    return reference_models.read(request.param)


@pytest.fixture(scope="module")
def engine(reference, tmp_path_factory):
    """With a prompt's plan for 32 tokens, so that the text takes three."""
    file = GGUFFile.open(reference.write(tmp_path_factory.mktemp("model") / "model.gguf"))
    engine = Engine.load(file, threads=2, ctx=128, chunk=32)
    yield engine
    engine.close()


def error(found, reference):
    return np.abs(found[reference.positions] - reference.logits).max() / np.abs(reference.logits).max()


def by_pieces(engine, ids, size):
    """The logits of the last of every `size` ids, which are taken together."""
    engine.reset()
    return np.stack([engine.prefill(ids[i : i + size]).copy() for i in range(0, len(ids), size)])


def test_logits(engine, reference):
    whole = engine.logits(reference.ids)
    assert error(whole, reference) < 1e-3
    steps = by_pieces(engine, reference.ids, 1)
    assert error(steps, reference) < 1e-3
    for size in (3, 8):
        pieces = by_pieces(engine, reference.ids, size)
        assert np.abs(pieces - whole[size - 1 :: size]).max() < 2e-3 * np.abs(reference.logits).max()


def test_greedy_text(engine, reference):
    engine.reset()
    logits, found = engine.prefill(reference.greedy[:32]), reference.greedy[:32]
    for _ in reference.greedy[32:]:
        found.append(int(logits.argmax()))
        logits = engine.step(found[-1])
    assert found == reference.greedy


def test_every_architecture_says_what_it_was_compared_with():
    for name in models.supported():
        assert all(models.verified(name))


def test_architectures_are_spelled_as_in_files(reference, tmp_path):
    file = GGUFFile.open(reference.write(tmp_path / "model.gguf"))
    assert file.get_str("general.architecture") in models.supported()


def test_architectures_are_spelled_as_llama_cpp_spells_them():
    """Those that the installed package knows; it has a name for each, in which hyphens and underscores differ."""
    known = {name.replace("_", "-"): name for name in gguf.MODEL_ARCH_NAMES.values()}
    spelled = [name for name in models.supported() if name.replace("_", "-") in known]
    assert len(spelled) > 20
    assert spelled == [known[name.replace("_", "-")] for name in spelled]


def test_a_dense_model_is_one_whose_only_expert_is_always_chosen(tmp_path):
    """qwen35 by qwen35moe, whose shared expert gives nothing here."""
    sparse = Tiny.read(reference_models.read("qwen35moe").write(tmp_path / "model.gguf"))
    arch = "qwen35moe"
    sparse.keys |= {f"{arch}.expert_count": 1, f"{arch}.expert_used_count": 1}
    for name in [name for name in sparse.tensors if "_exps" in name or "ffn_gate_inp.w" in name]:
        kind, data, columns = sparse.take(name)
        sparse.put(name, kind, data[:1], columns)
    for i in range(4):
        kind, data, columns = sparse.take(f"blk.{i}.ffn_down_shexp.weight")
        sparse.put(f"blk.{i}.ffn_down_shexp.weight", kind, np.zeros_like(data), columns)
    ids = reference_models.read(arch).ids
    expected = logits_of(sparse.write(tmp_path / "sparse.gguf"), ids)
    dense = Tiny({key.replace(arch, "qwen35"): value for key, value in sparse.keys.items()}, {}, {})
    dense.keys |= {"general.architecture": "qwen35", "qwen35.feed_forward_length": 32}
    for name, (kind, data) in sparse.tensors.items():
        if "_exps" in name:
            dense.put(name.replace("_exps", ""), kind, data[0], sparse.columns[name])
        elif "shexp" not in name and "ffn_gate_inp" not in name:
            dense.put(name, kind, data, sparse.columns[name])
    assert np.array_equal(logits_of(dense.write(tmp_path / "dense.gguf"), ids), expected)


@pytest.mark.parametrize("name", ["qwen2", "qwen3moe", "llama"])
def test_queries_keys_and_values_in_one_tensor(tmp_path, name):
    reference = reference_models.read(name)
    model = Tiny.read(reference.write(tmp_path / "apart.gguf"))
    expected = logits_of(tmp_path / "apart.gguf", reference.ids)
    for i in range(4):
        for kind in ("weight", "bias"):
            if f"blk.{i}.attn_q.{kind}" in model.tensors:
                parts = [model.take(f"blk.{i}.attn_{part}.{kind}") for part in "qkv"]
                columns = parts[0][2] if kind == "weight" else sum(part[2] for part in parts)
                model.put(f"blk.{i}.attn_qkv.{kind}", parts[0][0], np.concatenate([part[1] for part in parts]), columns)
    assert np.array_equal(logits_of(model.write(tmp_path / "fused.gguf"), reference.ids), expected)


def test_keys_that_a_layer_with_shared_ones_keeps_are_not_read(tmp_path):
    reference = reference_models.read("gemma4-e")
    model = Tiny.read(reference.write(tmp_path / "model.gguf"))
    expected = logits_of(tmp_path / "model.gguf", reference.ids)
    for part in ("k", "v", "k_norm"):
        kind, data = model.tensors[f"blk.3.attn_{part}.weight"]
        model.put(f"blk.5.attn_{part}.weight", kind, data, model.columns[f"blk.3.attn_{part}.weight"])
    assert np.array_equal(logits_of(model.write(tmp_path / "model.gguf"), reference.ids), expected)


def test_values_that_one_layer_lacks(tmp_path):
    """Either all layers without a window project values, or none does; those within it all do."""
    for name, i in (("gemma4", 0), ("gemma4-e", 2)):
        model = Tiny.read(reference_models.read(name).write(tmp_path / "model.gguf"))
        model.take(f"blk.{i}.attn_v.weight")
        with pytest.raises(ModelFileError, match=rf"blk\.{i}\.attn_v\.weight"):
            logits_of(model.write(tmp_path / "model.gguf"), [1])


@pytest.fixture
def apart(tmp_path):
    """Mixtral as its first files were: a tensor for each expert."""
    model = Tiny.read(reference_models.read("mixtral").write(tmp_path / "together.gguf"))
    for name in [name for name in model.tensors if "_exps" in name]:
        kind, data, columns = model.take(name)
        for i, expert in enumerate(data):
            model.put(name.replace("_exps", f".{i}"), kind, expert, columns)
    return model


def test_experts_in_tensors_of_their_own(tmp_path, apart):
    ids = reference_models.read("mixtral").ids
    expected = logits_of(tmp_path / "together.gguf", ids)
    assert np.array_equal(logits_of(apart.write(tmp_path / "apart.gguf"), ids), expected)


def test_experts_in_tensors_of_their_own_that_cannot_be(tmp_path, apart):
    name = "blk.1.ffn_up.3.weight"
    kind, data, columns = apart.take(name)
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_up\.3"):
        logits_of(apart.write(tmp_path / "missing.gguf"), [1])
    apart.put(name, "F16", np.zeros_like(data), columns)
    with pytest.raises(UnsupportedModelError, match="of several types"):
        logits_of(apart.write(tmp_path / "mixed.gguf"), [1])
    apart.put(name, kind, data[1:], columns)
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_up\.3"):
        logits_of(apart.write(tmp_path / "short.gguf"), [1])


def test_biases_that_must_be_there(tmp_path):
    model = Tiny.read(reference_models.read("qwen2").write(tmp_path / "model.gguf"))
    model.take("blk.2.attn_k.bias")
    with pytest.raises(ModelFileError, match=r"blk\.2\.attn_k\.bias"):
        logits_of(model.write(tmp_path / "model.gguf"), [1])


def logits_of(path, ids):
    engine = Engine.load(GGUFFile.open(path), threads=1, ctx=128)
    logits = engine.logits(ids)
    engine.close()
    return logits
