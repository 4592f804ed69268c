"""`qcli batch` is killed at random moments, and typed again until it is through: nothing is lost, nothing is there twice.

After each kill every line of the results is whole, but for the last, and at the end they are those of a run that nobody
killed. Not part of the suite, as it takes a minute: python -m pytest tests/fuzz/fuzz_batch_kills.py
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

KILLS = int(os.environ.get("QCLI_FUZZ_KILLS", "20"))
LINES = 200


def question(number: int) -> dict[str, object]:
    text = f"Tell me a story about {number} cats."
    if number % 50 == 49:
        return {"custom_id": f"q{number}", "prompt": number}  # an error
    if number % 3:
        return {"custom_id": f"q{number}", "prompt": text}
    return {"custom_id": f"q{number}", "body": {"messages": [{"role": "user", "content": text}]}}


def command(source, out):
    return [sys.executable, "-m", "qcli", "batch", source, "-o", out, "-n", "24", "-t", "1"]


def said(out) -> dict[str, object]:
    """The results of a file without what differs from run to run; all lines are whole but perhaps the last."""
    found: dict[str, object] = {}
    data = out.read_bytes() if out.exists() else b""
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        result = json.loads(line)
        id = result.pop("custom_id")
        assert id not in found
        if response := result.get("response"):
            response["body"].pop("created", None)
        found[id] = result
    return found


def test_kills_lose_nothing_and_double_nothing(tmp_path):
    chance = random.Random(19)
    source, whole, out = (tmp_path / name for name in ("in.jsonl", "whole.jsonl", "out.jsonl"))
    questions = [question(number) for number in range(LINES)]
    source.write_text("\n".join(map(json.dumps, questions)))
    began = time.monotonic()
    assert subprocess.run(command(source, whole), stderr=subprocess.DEVNULL).returncode == 1  # there are errors
    takes = time.monotonic() - began
    seen: dict[str, object] = {}
    killed = 0
    while killed < KILLS:
        chance.shuffle(questions)
        source.write_text("\n".join(map(json.dumps, questions)))
        process = subprocess.Popen(command(source, out), stderr=subprocess.DEVNULL)
        start = 0.5 * min(takes, 1.5)  # to load the model
        time.sleep(start + chance.random() * 2.5 * takes / KILLS)
        process.kill()
        killed += process.wait() != 1
        now = said(out)
        assert seen.items() <= now.items()
        seen = now
        if len(seen) == LINES:  # before all kills were done: from the beginning
            assert seen == said(whole)
            out.unlink()
            seen = {}
    assert subprocess.run(command(source, out), stderr=subprocess.DEVNULL).returncode == 1
    assert out.read_bytes().endswith(b"\n")
    assert said(out) == said(whole)
    assert len(said(out)) == LINES
