"""benchmarks/write_shape.py: the random weights of a shape as a file."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import gguf
import numpy as np
import pytest
from places import ROOT

from qcli.bench.ling_shapes import LING_MINI_2
from qcli.bench.model_shape import ModelShape
from qcli.bench.random_weights import find_mix, random_file
from qcli.bench.shapes import SHAPES
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine

SMALL = {
    "embedding_length": 256, "feed_forward_length": 256, "attention.head_count": 4, "attention.head_count_kv": 2,
    "attention.key_length": 64, "attention.value_length": 64, "expert_count": 16, "expert_feed_forward_length": 256,
    "expert_shared_feed_forward_length": 256, "rope.dimension_count": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("write_shape", ROOT / "benchmarks" / "write_shape.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shape() -> ModelShape:
    return replace(LING_MINI_2, vocab_size=320, keys=LING_MINI_2.keys | SMALL)


def logits(file):
    engine = Engine.load(file, threads=1, ctx=64)
    found = engine.logits([1, 2, 3])
    engine.close()
    return found


def test_the_file_has_the_weights_that_a_shape_is_measured_with(script, shape, tmp_path):
    mix = find_mix("q4_k_m")
    script.write_shape(shape, mix, 2, tmp_path / "model.gguf")
    with GGUFFile.open(tmp_path / "model.gguf") as file:
        made = random_file(shape, mix, 2)
        assert file.tensors.keys() == made.tensors.keys()
        for name, tensor in made.tensors.items():
            assert (file.tensors[name].type, file.tensors[name].shape) == (tensor.type, tensor.shape)
            assert np.array_equal(file.tensors[name].data, tensor.data)
        assert np.array_equal(logits(file), logits(made))
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_the_public_reader_reads_it(script, shape, tmp_path):
    script.write_shape(shape, find_mix("q8_0"), 2, tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert reader.get_field("bailingmoe2.block_count").contents() == 2
    assert reader.get_field("bailingmoe2.expert_weights_norm").contents() is True
    assert len(reader.get_field("tokenizer.ggml.tokens").contents()) == 320


def test_keys_that_are_added_are_of_shapes_that_there_are(script):
    known = {shape.architecture: shape for shape in SHAPES.values()}
    for architecture, keys in script.MORE_KEYS.items():
        assert not keys.keys() & known[architecture].keys.keys()
