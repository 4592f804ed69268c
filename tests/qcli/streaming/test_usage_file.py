"""The usage of experts, kept from one start to the next."""

from __future__ import annotations

import numpy as np
import pytest
from streamed_engine import logits_of, streamed

from qcli.errors import OutputError
from qcli.streaming import usage_file


def test_the_next_start_reads_what_was_asked_for(monkeypatch, expected, tmp_path):
    path = tmp_path / "new" / "usage.npz"
    engine = streamed(monkeypatch, 6, usage_path=path)
    logits_of(engine)
    before = engine.expert_loader.usage
    engine.close()
    assert [file.name for file in path.parent.iterdir()] == ["usage.npz"]
    engine = streamed(monkeypatch, 6, usage_path=path)
    assert engine.expert_loader.traffic.bytes_read == 0
    for name, layer in engine.expert_loader.layers.items():
        assert np.array_equal(layer.slots.usage, before[name])
        assert set(layer.slots.expert_in) == set(np.argsort(-before[name], kind="stable")[:6])
    assert all(np.array_equal(a, b) for a, b in zip(logits_of(engine), expected, strict=True))
    engine.close()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_usage_file_that_says_nothing_is_passed_over(tmp_path, damage):
    path = tmp_path / "usage.npz"
    assert usage_file.load(path) == {}
    if damage is None:
        wrong = {"shape": np.ones((2, 2), np.float32), "type": np.ones(3), "sign": np.array([-1, np.inf], np.float32)}
        np.savez(path, **wrong, objects=np.array([{}], object))
        assert usage_file.load(path) == {}
    else:
        path.write_bytes(damage)
        assert usage_file.load(path) == {}


def test_usage_that_cannot_be_saved_is_said_once_and_leaves_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    engine = streamed(monkeypatch, 6, usage_path=tmp_path / "file" / "usage.npz")
    engine.step(1)
    with pytest.raises(OutputError, match="cannot be saved"):
        engine.close()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
