"""gpt-oss as its files come: experts in MXFP4."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import reference_models
from gguf import GGMLQuantizationType
from tiny_model import Tiny, f32

from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine


def logits(path, ids):
    engine = Engine.load(GGUFFile.open(path), threads=2, ctx=128)
    together = engine.logits(ids)
    engine.reset()
    one_by_one = np.array([engine.step(token).copy() for token in ids])
    engine.close()
    return together, one_by_one


def test_experts_in_mxfp4(tmp_path):
    """Against the same numbers in float32; activations are int8 where weights are quantized."""
    reference = reference_models.read("gptoss")
    packed = Tiny.read(reference.write(tmp_path / "model.gguf"))
    plain = Tiny(packed.keys, dict(packed.tensors), dict(packed.columns))
    for name in [name for name in packed.tensors if name.endswith("_exps.weight")]:
        kind, data, columns = packed.take(name)
        values = gguf.quants.dequantize(data, GGMLQuantizationType[kind])
        blocks = gguf.quants.quantize(values, GGMLQuantizationType.MXFP4)
        packed.put(name, "MXFP4", blocks, columns)
        plain.put(name, "F32", f32(gguf.quants.dequantize(blocks, GGMLQuantizationType.MXFP4)), columns)
    expected, _ = logits(plain.write(tmp_path / "plain.gguf"), reference.ids)
    for found in logits(packed.write(tmp_path / "packed.gguf"), reference.ids):
        assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected)
    rounded = np.linalg.norm(expected[reference.positions] - reference.logits) / np.linalg.norm(reference.logits)
    assert rounded > 0.02  # four bits are not the model that was given


@pytest.mark.parametrize("threads", [3, 5])
def test_biases_are_added_alike_wherever_a_share_ends(tmp_path, threads):
    path = reference_models.read("gptoss").write(tmp_path / "model.gguf")
    logits = []
    for count in (1, threads):
        engine = Engine.load(GGUFFile.open(path), threads=count, ctx=32)
        logits.append(np.array([engine.step(token).copy() for token in range(1, 9)]))
        engine.close()
    assert np.array_equal(*logits)
