"""Synthetic models: as many bytes as there may be, shapes of the original, logits that are numbers."""

from __future__ import annotations

import numpy as np
import pytest
import reference_models
from places import DATA

from qcli.forecast import synthetic_model
from qcli.forecast.synthetic_model import BlockPool, SyntheticModel
from qcli.gguf.file import GGUFFile
from qcli.runtime.build import model_of
from qcli.runtime.engine import Engine

MODEL = DATA / "qwen3next.gguf"
ARCHITECTURES = reference_models.NAMES


def test_what_a_pool_hands_out_lies_inside_and_comes_round_again():
    pool = BlockPool("Q4_K", 10 * 576)
    taken = [pool.take(500) for _ in range(12)]
    begins = [piece.ctypes.data for piece in taken]
    assert len(set(begins)) == 10
    assert begins[:2] == begins[10:]
    addresses = pool.take_addresses(25, 1000)  # two of its grains each
    assert len(set(addresses.tolist())) == 5
    assert min(begins) <= addresses.min()
    assert addresses.max() + 1000 <= min(begins) + pool.n_bytes


def test_a_synthetic_model_takes_little_memory_and_large_models_share_it(monkeypatch):
    file = GGUFFile.open(MODEL)
    whole = sum(t.n_bytes for t in file.tensors.values())
    assert SyntheticModel(file).n_bytes < 2 * whole
    monkeypatch.setattr(synthetic_model, "_POOL", 1 << 14)
    small = SyntheticModel(file)
    assert small.n_bytes < whole
    for name, tensor_ in small.file.tensors.items():
        assert tensor_.data.shape == file.tensors[name].data.shape


def test_pools_of_a_model_that_is_over_serve_the_next(monkeypatch):
    file = GGUFFile.open(MODEL)
    first = SyntheticModel(file)
    name = "token_embd.weight"
    again = SyntheticModel(file, first)
    assert again.n_bytes == first.n_bytes
    begins = [model._pools[file.tensors[name].type]._memory.ctypes.data for model in (first, again)]
    assert begins[0] == begins[1]
    monkeypatch.setattr(synthetic_model, "_pool_bytes", lambda *_: 2 * first.n_bytes)
    assert SyntheticModel(file, first).n_bytes > 2 * first.n_bytes


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_a_synthetic_model_whose_logits_are_numbers(name, tmp_path):
    synthetic = SyntheticModel(GGUFFile.open(reference_models.read(name).write(tmp_path / "model.gguf")))
    model, state = model_of(synthetic.file, 64, "f16")
    for layer in synthetic_model.expert_layers(model, state.batch):
        synthetic.set_addresses(layer)
    engine = Engine(model, state, 2, 64)
    assert all(np.isfinite(engine.step(id)).all() for id in range(3))
    engine.close()
