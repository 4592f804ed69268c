"""Models with Kimi Delta Attention: bits, the forms that files of them come in, and files that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import reference_models
from streamed_engine import logits_of, streamed
from tiny_model import Tiny, f32

from qcli.errors import ModelFileError, QcliError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine

NAMES = ["kimi-linear", "bailingmoe3"]


@pytest.fixture(params=NAMES)
def path(request, tmp_path):
    return reference_models.read(request.param).write(tmp_path / "given.gguf")


@pytest.fixture
def tiny(tmp_path):
    """A tiny Kimi Linear, to change; call `save` to write it."""
    model = Tiny.read(reference_models.read("kimi-linear").write(tmp_path / "given.gguf"))
    model.save = lambda: model.write(tmp_path / "model.gguf")
    return model


def load(path, threads=1) -> Engine:
    return Engine.load(GGUFFile.open(path), threads=threads, ctx=256, chunk=64)


def found(path, threads=1):
    engine = load(path, threads)
    logits = logits_of(engine)
    engine.close()
    return logits


def equal(some, others) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def test_no_bit_depends_on_threads_or_streaming(path, monkeypatch):
    expected = found(path)
    assert equal(found(path, 2), expected)
    assert equal(found(path, 3), expected)
    engine = streamed(monkeypatch, 5, path)
    assert equal(logits_of(engine), expected)
    engine.close()


def test_dimensions_of_one_may_be_left_out(tiny, tmp_path):
    expected = found(tmp_path / "given.gguf")
    for name in [name for name in tiny.tensors if "conv1d" in name or name.endswith("ssm_a")]:
        kind, data, columns = tiny.take(name)
        columns = columns if "conv1d" in name else 4
        tiny.put(name, kind, data.reshape(-1, 4 * columns) if "conv1d" in name else data.reshape(-1), columns)
    assert equal(found(tiny.save()), expected)


def test_a_state_that_would_grow(tiny):
    kind, data, columns = tiny.take("blk.2.ssm_a")
    tiny.put("blk.2.ssm_a", kind, f32(-data.view(np.float32)), columns)
    with pytest.raises(ModelFileError, match=r"ssm_a.* would grow"):
        load(tiny.save())


def test_heads_that_kernels_cannot_take(tiny):
    """Heads of 8, in twice as many tensors' rows: all shapes agree with each other."""
    tiny.keys |= {"kimi-linear.kda.head_dim": 8, "kimi-linear.attention.head_count": 8}
    with pytest.raises(QcliError) as error:
        load(tiny.save())
    assert "\n" not in error.value.message


def test_experts_with_limits(tmp_path):
    model = Tiny.read(reference_models.read("bailingmoe3").write(tmp_path / "given.gguf"))
    model.keys["bailingmoe3.swiglu_clamp_exp"] = np.array([0, 0, 7, 7, 7, 7])
    with pytest.raises(UnsupportedModelError, match="swiglu_clamp_exp"):
        load(model.write(tmp_path / "model.gguf"))
    model.keys["bailingmoe3.swiglu_clamp_exp"] = np.zeros(6, int)
    load(model.write(tmp_path / "model.gguf")).close()
