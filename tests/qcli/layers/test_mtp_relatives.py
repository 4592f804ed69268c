"""Heads of multi-token prediction of DeepSeek-V3 and of GLM-4.5, of which there are no logits by others.

DeepSeek's against a twin in float64. GLM's against models of one layer, GLM's own: a head whose projection takes one half of
the pair alone is such a model, and the embedding that it sees is the half, normed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference_models
from deepseek2_model import MODELS, VOCAB
from teacher_forced import teacher_forced
from tiny_model import Tiny, f32

from qcli.doctor.twins.norm import rms_norm
from qcli.gguf.file import GGUFFile
from qcli.gguf.names import layer_of
from qcli.runtime.engine import Engine

IDS = np.random.default_rng(9).integers(0, VOCAB, 40).tolist()
DEEPSEEK = [
    replace(MODELS[name], absorbed=absorbed, mtp=True) for name in ("V3", "V2-Lite") for absorbed in (True, False)
]
GLM = "glm4moe"


def error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    "model", DEEPSEEK, ids=lambda model: f"{'sigmoid' if model.short else 'softmax'}-{model.absorbed}"
)
def test_deepseek_against_the_twin(model, tmp_path):
    path = model.write(tmp_path / "model.gguf")
    assert error(teacher_forced(path, IDS, "f32")[1], model.plain(rounded=False).mtp_logits(IDS)) <= 1e-5
    assert error(teacher_forced(path, IDS, "f16")[1], model.plain().mtp_logits(IDS)) <= 1e-4


@pytest.fixture
def glm(tmp_path):
    """A tiny GLM with a head whose layer is a copy of the last."""
    tiny = Tiny.read(reference_models.read(GLM).write(tmp_path / "given.gguf"))
    last, n = max(map(layer_of, tiny.tensors)), tiny.columns["output_norm.weight"]
    tiny.keys |= {f"{GLM}.block_count": last + 2, f"{GLM}.nextn_predict_layers": 1}
    for name in [name for name in tiny.tensors if name.startswith(f"blk.{last}.")]:
        kind, data = tiny.tensors[name]
        tiny.put(name.replace(f"blk.{last}", f"blk.{last + 1}"), kind, data, tiny.columns[name])
    rng = np.random.default_rng(3)
    for norm in ("enorm", "hnorm", "shared_head_norm"):
        tiny.put(f"blk.{last + 1}.nextn.{norm}.weight", "F32", f32(1 + 0.2 * rng.standard_normal(n)), n)
    tiny.put(f"blk.{last + 1}.nextn.eh_proj.weight", "F32", f32(np.eye(n, 2 * n)), 2 * n)
    return tiny


def numbers(tiny, name):
    kind, data = tiny.tensors[f"{name}.weight"]
    data = np.ascontiguousarray(data)
    return data.view(np.float32) if kind == "F32" else (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def alone(glm, inputs):
    """The head's layer as a model of its own, whose token i is the row i of inputs [tokens, n]."""
    tiny, block = Tiny(dict(glm.keys), {}, {}), f"blk.{glm.keys[f'{GLM}.block_count'] - 1}."
    tiny.keys |= {f"{GLM}.block_count": 1, f"{GLM}.nextn_predict_layers": 0, f"{GLM}.leading_dense_block_count": 0}
    names = {"output.weight": "output.weight", f"{block}nextn.shared_head_norm.weight": "output_norm.weight"}
    names |= {
        name: name.replace(block, "blk.0.") for name in glm.tensors if name.startswith(block) and "nextn" not in name
    }
    for name, new in names.items():
        kind, data = glm.tensors[name]
        tiny.put(new, kind, data, glm.columns[name])
    table = np.zeros((len(numbers(glm, "output")), inputs.shape[1]), np.float32)
    table[: len(inputs)] = inputs
    tiny.put("token_embd.weight", "F32", f32(table), inputs.shape[1])
    return tiny


@pytest.mark.parametrize("half", ["embedding", "row"])
def test_glm_s_layer_is_one_of_its_own_kind(glm, half, tmp_path):
    ids, n = reference_models.read(GLM).ids[:40], glm.keys[f"{GLM}.embedding_length"]
    block, eps = f"blk.{glm.keys[f'{GLM}.block_count'] - 1}", glm.keys[f"{GLM}.attention.layer_norm_rms_epsilon"]
    if half == "row":
        glm.put(f"{block}.nextn.eh_proj.weight", "F32", f32(np.eye(n, 2 * n, n)), 2 * n)
    rows, found = teacher_forced(glm.write(tmp_path / "model.gguf"), ids, "f32")
    seen = numbers(glm, "token_embd")[ids[1:]] if half == "embedding" else rows[:-1]
    norm = numbers(glm, f"{block}.nextn.{'enorm' if half == 'embedding' else 'hnorm'}")
    engine = Engine.load(
        GGUFFile.open(alone(glm, rms_norm(seen, norm, eps)).write(tmp_path / "alone.gguf")),
        threads=2,
        ctx=128,
        kv_type="f32",
    )
    expected = engine.logits(range(len(ids) - 1))
    engine.close()
    assert error(found, expected) <= 1e-5


def test_texts_and_guesses(glm, tmp_path):
    """The text is that of the model without a head, and guesses are told one by one."""
    path, ids = glm.write(tmp_path / "model.gguf"), reference_models.read(GLM).ids
    plain, drafting = (Engine.load(GGUFFile.open(path), threads=1, ctx=128, chunk=32, mtp=mtp) for mtp in (False, True))
    _, forced = teacher_forced(path, ids[:60], "f16")
    assert np.array_equal(plain.prefill(ids[:40]), drafting.prefill(ids[:40]))
    for at in range(40, 60):
        assert drafting.draft(ids[at], 1) == [int(forced[at - 1].argmax())]
        assert np.array_equal(plain.step(ids[at]), drafting.step(ids[at]))
    plain.close()
    drafting.close()
