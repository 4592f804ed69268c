"""Scales of whole tensors, and of each expert's, as files of NVFP4 have them: products are multiplied by them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import reference_models
from streamed_engine import streamed
from tiny_model import PLAIN, Tiny, f32

from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from quant import formats, quantizers

IDS = np.random.default_rng(2).integers(6, 60, 60).tolist()
SCALED = re.compile(
    r"(blk\.\d+\.(attn_(q|k|v|qkv|gate|output)|ssm_(ba|out|alpha|beta)|ffn_\w+_(exps|shexp)|ffn_(gate|up|down))|output)\.weight"
)
NAMES = ["qwen3next", "qwen35moe", "qwen3moe", "qwen2", "granitehybrid", "kimi-linear"]


@pytest.fixture(scope="module")
def plain(request, tmp_path_factory):
    """A model of float32."""
    path = tmp_path_factory.mktemp("plain") / "model.gguf"
    tiny = Tiny.read(PLAIN if request.param == "qwen3next" else reference_models.read(request.param).write(path))
    for name, (kind, data) in tiny.tensors.items():
        if kind == "BF16":
            tiny.tensors[name] = "F32", f32((data.view(np.uint16).astype(np.uint32) << 16).view(np.float32))
    return tiny


def scaled(tiny, draw):
    """The same with a scale beside every matrix, by which its weights are divided; draw(count): scales."""
    made = Tiny(dict(tiny.keys), dict(tiny.tensors), dict(tiny.columns))
    for name, (kind, data) in tiny.tensors.items():
        if SCALED.fullmatch(name):
            count = len(data) if data.ndim == 3 else 1
            scales = draw(count).astype(np.float32)
            values = data.view(np.float32) / scales.reshape(-1, *[1] * (data.ndim - 1))
            made.put(name, kind, f32(values), tiny.columns[name])
            made.put(name.removesuffix("weight") + "scale", "F32", f32(scales), count)
            made.put(name.removesuffix("weight") + "input_scale", "F32", f32(np.full(count, 7.0)), count)
    assert sum(name.endswith(".scale") for name in made.tensors) > 8
    return made


def logits_of(engine, close=True):
    """Of a prompt, of pieces of it, of steps, and of steps of several tokens."""
    found = [engine.logits(IDS)]
    engine.reset()
    found.append(np.array([engine.prefill(IDS[:30]).copy(), *(engine.step(token).copy() for token in IDS[30:50])]))
    found.append(engine.steps(IDS[50:57]).copy())
    if close:
        engine.close()
    return found


def loaded(path):
    return Engine.load(GGUFFile.open(path), threads=2, ctx=128, chunk=32, kv_type="f32")


@pytest.mark.parametrize("plain", NAMES, indirect=True)
def test_scales_that_are_powers_of_two_change_no_bit(plain, tmp_path):
    rng = np.random.default_rng(1)
    other = scaled(plain, lambda count: 2.0 ** rng.integers(-3, 4, count))
    expected = logits_of(loaded(plain.write(tmp_path / "plain.gguf")))
    found = logits_of(loaded(other.write(tmp_path / "scaled.gguf")))
    for one, wanted in zip(found, expected, strict=True):
        assert np.array_equal(one, wanted)


@pytest.mark.parametrize("plain", NAMES, indirect=True)
def test_any_scales(plain, tmp_path):
    rng = np.random.default_rng(1)
    other = scaled(plain, lambda count: rng.uniform(0.01, 0.5, count))
    expected = logits_of(loaded(plain.write(tmp_path / "plain.gguf")))
    found = logits_of(loaded(other.write(tmp_path / "scaled.gguf")))
    for one, wanted in zip(found, expected, strict=True):
        assert np.abs(one - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("plain", ["qwen3moe", "qwen3next"], indirect=True)
def test_experts_that_are_streamed(plain, tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    path = scaled(plain, lambda count: rng.uniform(0.01, 0.5, count)).write(tmp_path / "scaled.gguf")
    expected = logits_of(Engine.load(GGUFFile.open(path), threads=2, ctx=256, chunk=64))
    engine = streamed(monkeypatch, 16, path)
    for one, wanted in zip(logits_of(engine), expected, strict=True):
        assert np.array_equal(one, wanted)


@pytest.mark.parametrize("plain", ["qwen3moe"], indirect=True)
def test_nvfp4(plain, tmp_path):
    """Logits are those of the weights that the blocks and the scale stand for, but for inputs that are rounded to int8."""
    wanted, made = (
        Tiny(dict(plain.keys), dict(plain.tensors), dict(plain.columns)),
        scaled(plain, lambda n: 1 / np.arange(3, 3 + n)),
    )
    bare = Tiny(dict(plain.keys), dict(plain.tensors), dict(plain.columns))
    kind = formats.find("NVFP4")
    for name in [name for name in plain.tensors if SCALED.fullmatch(name) and plain.columns[name] % 64 == 0]:
        data, columns = made.tensors[name][1], plain.columns[name]
        blocks = quantizers.find("NVFP4").quantize(data.view(np.float32).reshape(-1, columns))
        blocks = blocks.reshape(*data.shape[:-1], -1)
        for tiny in (made, bare):
            tiny.put(name, "NVFP4", blocks, columns)
        scales = made.tensors[name.removesuffix("weight") + "scale"][1].view(np.float32)
        values = kind.dequantize(blocks).reshape(*data.shape[:-1], columns)
        wanted.put(name, "F32", f32(values * scales.reshape(-1, *[1] * (values.ndim - 1))), columns)
    expected, found, without = (
        logits_of(loaded(tiny.write(tmp_path / f"{i}.gguf")))[0] for i, tiny in enumerate((wanted, made, bare))
    )
    off = np.abs(found - expected).max(axis=1) / np.abs(expected).max(axis=1)
    assert np.median(off) < 0.02
    assert np.median(np.abs(without - expected).max(axis=1) / np.abs(expected).max(axis=1)) > 0.3


@pytest.mark.parametrize("plain", ["qwen3moe"], indirect=True)
@pytest.mark.parametrize(
    ("tensor", "count"),
    [
        ("blk.1.attn_q.scale", 2),
        ("blk.1.ffn_gate_exps.scale", 4),
        ("blk.0.attn_norm.scale", 1),
        ("blk.0.attn_v.input_scale", 3),
    ],
)
def test_scales_of_something_else(plain, tmp_path, tensor, count):
    """Without it a model says something else, and nobody would know."""
    made = Tiny(dict(plain.keys), dict(plain.tensors), dict(plain.columns))
    made.put(tensor, "F32", f32(np.full(count, 0.5)), count)
    with pytest.raises(UnsupportedModelError, match=re.escape(f'"{tensor}" scales a tensor in a way')) as error:
        loaded(made.write(tmp_path / "model.gguf"))
    assert "Q4_K_M" in error.value.hint


@pytest.mark.parametrize("plain", ["qwen2"], indirect=True)
def test_a_scale_of_nothing_beside_a_bias(plain, tmp_path):
    """A bias is added after the scale is applied, and comes divided by it."""
    made = Tiny(dict(plain.keys), dict(plain.tensors), dict(plain.columns))
    made.put("blk.1.attn_q.scale", "F32", f32([0.0]), 1)
    with pytest.raises(ModelFileError, match=r'"blk\.1\.attn_q\.scale" is 0'):
        loaded(made.write(tmp_path / "model.gguf"))
