"""A process that fetches a model is killed at random moments, fifty times over.

What was marked before a kill is not asked for again, no file that `run` would open is there before it is right, and in the end
it is. Not part of the suite, as it takes two minutes: python -m pytest tests/fuzz/fuzz_pull_kills.py
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import DATA
from stand_in_hub import Asked, StandInHub, sha256

from qcli.hub.transfer_part import Part

KILLS = int(os.environ.get("QCLI_FUZZ_KILLS", "50"))
BLOCK = 1 << 15
REPO, NAME = "some/Model-GGUF", "Model-Q4_K_M.gguf"
CHILD = f"""
from qcli.hub import connection, transfer, transfer_part
transfer.BLOCK = transfer_part.BLOCK = {BLOCK}
transfer.SAVE_EVERY, connection._FIRST_PAUSE = 0.02, 0.01
from qcli.cli import main
main()
"""


def marked(folder: Path, data: bytes) -> bytes:
    """A 1 for each block that a process has marked as being there."""
    blobs = folder / "models--some--Model-GGUF" / "blobs"
    part = Part(blobs / sha256(data), len(data), sha256(data), NAME)
    part.look()
    return bytes(part.there)


def again(asked: list[Asked], there: bytes) -> list[int]:
    """The blocks that were asked for although they were there."""
    ranges = [one.range for one in asked if one.range]
    wanted = {block for first, last in ranges for block in range(first // BLOCK, last // BLOCK + 1)}
    return [block for block in sorted(wanted) if there[block]]


@pytest.mark.parametrize("seed", [1])
def test_killed_at_random_moments(hub: StandInHub, tmp_path, seed):
    chance, kills, whole = random.Random(seed), 0, 0
    folder = tmp_path / "cache"
    data = (DATA / "qwen3next.gguf").read_bytes()
    while kills < KILLS:
        hub.repos[REPO][NAME] = data = data[:1_281_632] + chance.randbytes(12_000_000)
        hub.fault = lambda asked: time.sleep(0.05) if asked.site == "store" else None
        while True:
            there = marked(folder, data)
            hub.asked.clear()
            child = subprocess.Popen([sys.executable, "-c", CHILD, "pull", REPO, "-q"], stdout=subprocess.PIPE)
            try:
                out, _ = child.communicate(timeout=chance.uniform(0.3, 1.5))
                break
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                kills += 1
            assert again(hub.requests("store"), there) == []
            assert all(path.read_bytes() == data for path in folder.glob("*/snapshots/*/*"))
        assert child.returncode == 0
        assert Path(out.decode().strip()).read_bytes() == data
        assert again(hub.requests("store"), there) == []
        whole += 1
        for path in folder.glob("*/snapshots/*/*"):
            path.unlink()
    assert whole > 1
