"""qcli bench of a model larger than memory: other tokens every time, figures of the disk, and what it refuses."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from qcli.bench import bandwidth
from qcli.bench.cases import Case
from qcli.bench.disk import DiskReads
from qcli.bench.rig import Rig
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.streaming import budget, usage_file
from qcli.streaming.cache import Traffic

SLOTS, EXPERTS = 6, 16
PARTS = {"embedding", "norms", "linear attention", "attention", "router", "experts", "head", "sampling", "waiting"}


@pytest.fixture
def usage_path(monkeypatch, tmp_path) -> Path:
    """Where usage would be saved; the embedded model has a few slots for its experts, whatever the memory."""
    monkeypatch.setattr(bandwidth, "MOST", 1 << 22)
    monkeypatch.setattr(usage_file, "path_for", lambda _file: tmp_path / "usage.npz")
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    monkeypatch.setattr(budget, "allocate_slots", lambda loader, *_: loader.allocate(SLOTS))
    return tmp_path / "usage.npz"


def rig_on(storyteller: Path) -> Rig:
    file = GGUFFile.open(storyteller)
    return Rig(Engine.load(file, threads=1, ctx=128, chunk=32), file)


def ids_taken(monkeypatch, rig: Rig, *cases: Case) -> list[tuple[int, ...]]:
    """The ids of each case, run by the clock."""
    taken: list[int] = []
    step, prefill = rig.engine.step, rig.engine.prefill
    monkeypatch.setattr(rig.engine, "step", lambda id: (taken.append(id), step(id))[1])
    monkeypatch.setattr(rig.engine, "prefill", lambda ids: (taken.extend(ids), prefill(ids))[1])
    found = []
    for case in cases:
        taken.clear()
        rig.run(case)
        found.append(tuple(taken))
    return found


def test_a_streamed_model_takes_other_tokens_every_time(monkeypatch, storyteller, usage_path):
    rig = rig_on(storyteller)
    prompt, answer = Case("pp", 20, 0, 1, 32), Case("tg", 4, 0, 1, 32)
    found = ids_taken(monkeypatch, rig, prompt, answer, prompt, answer)
    assert list(map(len, found)) == [20, 4, 20, 4]
    assert len({ids[:4] for ids in found}) == 4  # nor does an answer take a prompt's
    rig.close()


def test_a_resident_one_takes_the_same(monkeypatch, storyteller):
    rig = rig_on(storyteller)
    answer = Case("tg", 4, 0, 1, 32)
    first, second = ids_taken(monkeypatch, rig, answer, answer)
    assert first == second
    assert (rig.traffic, rig.cache_size(1), rig.dense) == (None, None, [])
    rig.close()


def test_traffic_is_of_the_last_repetition(storyteller, usage_path):
    rig = rig_on(storyteller)
    found = []
    for _ in range(3):
        rig.run(Case("tg", 4, 0, 1, 32))
        found.append(rig.traffic)
    asked = [traffic.hits + traffic.misses for traffic in found]
    assert asked == 3 * [4 * 8 * rig.engine.expert_loader.experts_per_token]  # tokens x layers x experts
    assert all(traffic.bytes_read for traffic in found)
    size = rig.cache_size(10**9)
    assert (size.ram, size.slots, size.experts_per_layer) == (10**9, SLOTS, EXPERTS)
    rig.close()


def test_random_tokens_leave_no_usage(storyteller, usage_path):
    rig = rig_on(storyteller)
    rig.run(Case("tg", 2, 0, 1, 32))
    rig.close()
    assert not usage_path.exists()


def test_dense_weights_are_what_bandwidth_reads(storyteller, usage_path):
    rig = rig_on(storyteller)
    measured = bandwidth.Bandwidth([1], rig.dense)
    assert measured.sample(1) > 0
    measured.close()
    file = rig.engine.expert_loader._file
    experts = sum(tensor.n_bytes for name, tensor in file.tensors.items() if "_exps." in name)
    assert sum(map(len, rig.dense)) == sum(tensor.n_bytes for tensor in file.tensors.values()) - experts
    rig.close()


def test_figures_of_the_disk_made_by_hand():
    traffic = [Traffic(30, 10, 400, 0.5), Traffic(20, 20, 800, 1.0), Traffic(10, 30, 600, 0.2)]
    disk = DiskReads.of(traffic, [1.0, 4.0, 2.0], tokens=2)
    assert disk == DiskReads(0.5, 300, 0.25, 300e-9)
    assert DiskReads.of([Traffic(0, 0, 400, 0.5)], [1.0], 100).hit_rate is None  # of a prompt


def test_json_tells_what_was_read(type_line, usage_path):
    code, out, err = type_line("bench", *"--ram 3GB -p 40 -n 6 -t 1 -r 1 --json".split())
    assert (code, err) == (0, "")
    prompt, answer = json.loads(out)
    for one in (prompt, answer):
        told = one["streaming"]
        assert (told["ram_bytes"], told["slots"], told["experts_per_layer"]) == (3 * 10**9, SLOTS, EXPERTS)
        assert told["bytes_per_token"] > 0
        assert 0 < told["wait_share"] < 1
        rate = told["bytes_per_token"] * one["tok_per_s"] / 1e9
        assert told["disk_gb_per_s"] == pytest.approx(rate, rel=0.01)
        assert set(one["parts"]) == PARTS | {"disk", "bookkeeping"}
        assert min(one["parts"].values()) >= 0
        assert sum(one["parts"].values()) == pytest.approx(one["seconds"], rel=1e-3)
        assert one["roofline"] > 0
    assert prompt["streaming"]["hit_rate"] is None
    assert 0 < answer["streaming"]["hit_rate"] < 1


def test_the_table_fits_a_terminal(type_line, usage_path):
    code, out, _ = type_line("bench", *"--ram 3GB -p 40 -n 2 -d 0,64 -t 1 -r 1".split())
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert f"streamed: may use 3.0 GB, which is room for {SLOTS} of {EXPERTS} experts in each layer" in lines
    heading = next(line.split() for line in lines if line.startswith("test"))
    assert heading == ["test", "tok/s", "±", "GB/s", "roofline", "hits", "MB/token", "waits", "disk", "GB/s"]
    assert "hits: experts that were in memory" in out
    assert sum(line.startswith(("disk ", "bookkeeping ")) for line in lines) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("-t 1,2", "each of 2 pairs of -t and -b would take all there is"),
        ("-t 1,2 -b 16,32 --ram 3GB", "each of 4 pairs of -t and -b would take all there is"),
        ("-t 1 --peer", "cannot be given to a --peer too"),
    ],
)
def test_only_one_can_have_the_memory(monkeypatch, refused, usage_path, arguments, said):
    monkeypatch.setattr("qcli.bench.peer.require_peer", lambda: None)
    before = threading.active_count()
    refused(["bench", *arguments.split()], 2, said)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--ram lots", '"lots" is not an amount of memory'),
        ("--ram 3GB --peer", "--peer cannot be held to --ram"),
        ("--ram 3GB --shape qwen3-next-80b-a3b", "--ram needs a file to read experts from"),
    ],
)
def test_what_cannot_be_meant(refused, arguments, said):
    refused(["bench", *arguments.split()], 2, said)


def test_memory_that_does_not_hold_a_token(refused):
    refused(["bench", "--ram", "10MB", "-t", "1"], 1, "is not enough for this model")
