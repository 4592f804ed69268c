"""The usage of experts, kept from one start to the next."""

from __future__ import annotations

import os

import numpy as np
import pytest
from streamed_engine import logits_of, streamed

from qcli.errors import OutputError
from qcli.streaming import usage_file
from quant.renaming import PART


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


def test_a_flipped_bit_of_a_usage_file_costs_the_usage_alone(tmp_path):
    path, usage = tmp_path / "usage.npz", np.random.default_rng(0).random(64).astype(np.float32)
    usage_file.save(path, {"blk.0.ffn_gate_inp.weight": usage})
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        found = usage_file.load(path)
        assert all(np.array_equal(values, usage) for values in found.values())
        path.write_bytes(whole[:at])
        assert usage_file.load(path) == {}


def test_what_a_process_left_that_was_killed_while_it_wrote_is_removed(monkeypatch, tmp_path, type_line):
    path = tmp_path / "usage" / f"a-{'1' * 16}.npz"
    kept: list[str] = []
    monkeypatch.setattr(usage_file, "replace", lambda written, _: kept.append(written.name))
    for _ in range(2):  # as if each were killed before it gives the file its name
        usage_file.save(path, {"gate": np.ones(3, np.float32)})
    assert all(name.startswith(path.name) and name.endswith(PART) for name in kept)
    os.utime(path.with_name(kept[0]), (0, 0))
    usage_file.save(path, {"gate": np.ones(3, np.float32)})
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(kept[1:])
    monkeypatch.setenv("QCLI_CACHE_DIR", str(tmp_path))
    assert type_line("cache", "clear", "usage")[0] == 0
    assert not path.parent.exists()


def test_usage_that_cannot_be_saved_is_said_once_and_leaves_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    engine = streamed(monkeypatch, 6, usage_path=tmp_path / "file" / "usage.npz")
    engine.step(1)
    with pytest.raises(OutputError, match="cannot be saved"):
        engine.close()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
