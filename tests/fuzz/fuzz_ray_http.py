"""The HTTP processor of `ray.data.llm` asks `qcli serve`, as docs/batch.md tells: the same texts as `qcli batch` writes.

Not part of the suite, as it needs Ray and takes minutes: python -m pytest tests/fuzz/fuzz_ray_http.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

LINES = int(os.environ.get("QCLI_FUZZ_LINES", "200"))
PAGE = Path(__file__).parents[2] / "docs" / "batch.md"
WHO = ("fox", "dog", "king")


def question(number: int) -> dict[str, object]:
    asked = {"custom_id": f"q{number}", "prompt": f"Tell me about {number} cats and a {WHO[number % 3]}."}
    chosen = {"temperature": 0} if number % 2 else {"seed": number}
    if number % 50 == 49:
        return {**asked, "max_tokens": -1, **chosen}  # an error
    return {**asked, "max_tokens": 20 + number % 30, **chosen}


def test_what_the_page_shows_gives_the_texts_of_a_batch(tmp_path):
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(question(n)) + "\n" for n in range(LINES)))
    batch = [sys.executable, "-m", "qcli", "batch", "questions.jsonl", "-o", "out.jsonl", "-t", "2"]
    assert subprocess.run(batch, cwd=tmp_path, timeout=900).returncode == 1  # there are errors
    expected = {row["custom_id"]: row for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}

    (lines,) = re.findall(r"```python\n(import ray\nfrom ray\.data\.llm .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    serve = [sys.executable, "-m", "qcli", "serve", "--port", "0", "-t", "2"]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            found = re.search(r":(\d+)/v1", server.stderr.readline())
            assert found
            (tmp_path / "ask.py").write_text(lines.replace(":8080/", f":{found[1]}/"))
            environment = {**os.environ, "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
            subprocess.run([sys.executable, "ask.py"], cwd=tmp_path, env=environment, check=True, timeout=900)
        finally:
            server.terminate()
            log = server.stderr.read()
    assert "Traceback" not in log
    parts = sorted((tmp_path / "answers").glob("*.json"))
    rows = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert len(rows) == len({row["custom_id"] for row in rows}) == LINES
    assert {row["custom_id"]: row["text"] for row in rows} == {id: row.get("text") for id, row in expected.items()}
    assert {row["custom_id"]: row["error"] for row in rows} == {id: row["error"] for id, row in expected.items()}
