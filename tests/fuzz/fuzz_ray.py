"""A batch on a cluster of two workers, of which one is killed half-way: every row is answered once, as without Ray.

Not part of the suite, as it needs Ray and takes minutes: python -m pytest tests/fuzz/fuzz_ray.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

LINES = int(os.environ.get("QCLI_FUZZ_LINES", "200"))
WHO = ("fox", "dog", "king")
ROWS = [
    {"custom_id": f"q{n}", "prompt": f"Tell me about {n} cats and a {WHO[n % 3]}.", "max_tokens": 20 + n % 30}
    for n in range(LINES)
]


def texts(path):
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len({row["custom_id"] for row in found}) == len(found) == LINES
    assert not [row for row in found if row["error"]]
    return {row["custom_id"]: row["text"] for row in found}


def line(folder, name, *more):
    return [
        sys.executable,
        "-m",
        "qcli",
        "batch",
        str(folder / "in.jsonl"),
        "-o",
        str(folder / name),
        "--parallel",
        "4",
        *more,
    ]


def below(process: int) -> list[int]:
    """The workers that a process, or one that it has started, has begun."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
    found = []
    for worker, name in names.items():
        at = worker
        while at in parents and at != process:
            at = parents[at]
        if at == process and name.startswith(b"ray::") and b"MapWorker" in name:
            found.append(worker)
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The file of rows, and their texts without Ray."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    subprocess.run(line(folder, "out.jsonl", "-t", "2"), check=True, timeout=900)
    return folder, texts(folder / "out.jsonl")


@pytest.mark.skipif(sys.platform != "linux", reason="finds workers in /proc")
def test_a_worker_is_killed_half_way(alone):
    folder, expected = alone
    out = folder / "killed.jsonl"
    process = subprocess.Popen(line(folder, out.name, "-t", "1", "--ray", "local"), stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 600
        while not out.exists() or len(out.read_bytes().splitlines()) < LINES // 2:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.02)
        workers = below(process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        done = len(out.read_bytes().splitlines())
        assert process.wait(900) == 0
        assert done < LINES
        assert texts(out) == expected
        assert "Traceback" not in process.stderr.read()
        assert below(process.pid) == []
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.filterwarnings("ignore")  # Ray's, of Ray
def test_the_predictor_gives_the_same(alone):
    import ray

    from qcli.ray import Predictor

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        rows = ray.data.from_items([{**row, "kept": i} for i, row in enumerate(ROWS)], override_num_blocks=4)
        pool = ray.data.ActorPoolStrategy(size=2)
        given = {"parallel": 4, "max_tokens": 5}
        answered = rows.map_batches(Predictor, fn_constructor_kwargs=given, num_cpus=1, compute=pool, batch_size=None)
        found = answered.take_all()
    finally:
        ray.shutdown()
    assert {row["custom_id"]: row["text"] for row in found} == alone[1]
    assert sorted(row["kept"] for row in found) == list(range(LINES))
    assert all(row["error"] is None and json.loads(row["result"])["new_tokens"] == row["new_tokens"] for row in found)
