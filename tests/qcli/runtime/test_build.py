"""Models whose shapes qcli's kernels do not have: the message says so, and sends nobody to another file of the model."""

from __future__ import annotations

import gguf_maker as maker
import numpy as np
import pytest

from qcli.errors import UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.runtime.build import model_of


def llama(path, width: int, head: int):
    """A llama of one layer, with two heads."""
    numbers = {"context_length": 64, "embedding_length": width, "block_count": 1, "feed_forward_length": 64}
    numbers |= {"attention.head_count": 2, "attention.key_length": head, "attention.value_length": head}
    numbers |= {"rope.dimension_count": head}
    keys = [maker.key("general.architecture", maker.STRING, "llama")]
    keys += [maker.key(f"llama.{name}", maker.U32, number) for name, number in numbers.items()]
    keys += [maker.key("llama.attention.layer_norm_rms_epsilon", maker.F32, 1e-6)]
    shapes = {"token_embd": (32, width), "output_norm": (width,)}
    block = {"attn_norm": (width,), "ffn_norm": (width,), "attn_output": (width, 2 * head)}
    block |= {f"attn_{name}": (2 * head, width) for name in "qkv"}
    block |= {"ffn_gate": (64, width), "ffn_up": (64, width), "ffn_down": (width, 64)}
    shapes |= {f"blk.0.{name}": shape for name, shape in block.items()}
    rows, data = [], b""
    for name, shape in shapes.items():
        rows.append(maker.tensor(f"{name}.weight", shape, 0, len(data)))
        data += np.zeros(shape, "<f4").tobytes()
        data += bytes(-len(data) % 32)
    return maker.write(path, maker.File(keys, rows, data))


def test_shapes_that_kernels_have(tmp_path):
    with GGUFFile.open(llama(tmp_path / "m.gguf", 64, 32)) as file:
        assert model_of(file, 16, "f16")[0].vocab_size == 32


@pytest.mark.parametrize(("width", "head"), [(24, 32), (40, 32), (64, 20), (64, 12)])
def test_shapes_that_they_lack_are_said_to_be_unsupported(tmp_path, width, head):
    path = llama(tmp_path / "m.gguf", width, head)
    with GGUFFile.open(path) as file, pytest.raises(UnsupportedModelError) as caught:
        model_of(file, 16, "f16")
    assert str(path) in caught.value.message
    assert caught.value.hint == "all files of this model have that in common: take another model"
