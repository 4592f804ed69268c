"""States of one model are never taken for those of another."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_model import Tiny

from qcli.gguf.file import GGUFFile
from qcli.runtime.fingerprint import fingerprint


@pytest.fixture
def tiny():
    return Tiny.read()


@pytest.fixture
def of(tmp_path):
    """The fingerprint of a model, written to a file of this name."""

    def ask(model: Tiny, name: str = "model.gguf", kv_type: str = "f16") -> str:
        with GGUFFile.open(model.write(tmp_path / name)) as file:
            return fingerprint(file, kv_type)

    return ask


def test_a_copy_of_a_model_has_the_same(tiny, of):
    assert of(tiny) == of(tiny, "copy.gguf")
    assert len(of(tiny)) == 32
    assert set(of(tiny)) <= set("0123456789abcdef")


def test_the_type_of_keys_and_values_tells_states_apart(tiny, of):
    assert of(tiny, kv_type="q8_0") != of(tiny)


def test_a_key_tells_models_apart(tiny, of):
    before = of(tiny)
    tiny["rope.freq_base"] = 12345.0
    assert of(tiny) != before


def test_each_tensor_tells_models_apart(tiny, of):
    before = of(tiny)
    seen = {before}
    for name, (kind, values) in list(tiny.tensors.items()):
        changed = values.copy()
        changed.reshape(-1).view(np.uint8)[changed.nbytes // 2] ^= 1
        tiny.tensors[name] = kind, changed
        seen.add(of(tiny))
        tiny.tensors[name] = kind, values
    assert len(seen) == 1 + len(tiny.tensors)
    assert of(tiny) == before
