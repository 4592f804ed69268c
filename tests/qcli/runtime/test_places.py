"""How many texts there is memory for."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from qcli.runtime import places
from qcli.streaming import budget

GIB = 1 << 30


def engine(spare, most_tokens=8) -> Any:
    state = SimpleNamespace(slot_bytes=GIB - 4 * 1024)
    given = {"most_tokens": most_tokens, "spare_bytes": spare, "expert_loader": None}
    return SimpleNamespace(state=state, vocab_size=1024, **given)


def test_as_many_as_fit_into_what_the_engine_may_use_and_into_what_is_free(monkeypatch):
    monkeypatch.setattr(places, "process_memory", lambda: 3 * GIB)
    monkeypatch.setattr(budget, "limit", lambda ram: 8 * GIB)
    assert [places.places(engine(n * GIB), 4) for n in (0, 1, 2, 3, 4, 9)] == [1, 1, 2, 3, 4, 4]
    assert places.places(engine(9 * GIB), 32) == 5
    assert places.places(engine(2 * GIB - 1), 4) == 1
    assert places.places(engine(-GIB), 4) == 1
    assert places.places(engine(9 * GIB, most_tokens=1), 4) == 1


RUN = """
import json, re, sys
from pathlib import Path
from qcli import LLM
from qcli.runtime.places import places, text_bytes
from qcli.streaming import budget
if sys.argv[2] == "streamed":
    budget.fits = lambda *_: False
with LLM(ram=int(sys.argv[1]), ctx=2048, threads=2, kv_type="f32", keep="shared") as llm:
    room = llm.engine.spare_bytes, text_bytes(llm.engine.state, llm.engine.vocab_size)
    asked = [f"{i} " + "the cat and the dog went to the sea and " * 10 for i in range(33)]
    results = llm.batch(asked, parallel=32, max_tokens=4, seed=1)
    assert bool(llm.engine.expert_loader) == (sys.argv[2] == "streamed")
    counts = places(llm.engine, 32), llm._several._together.most
told = [result.text for result in results], [str(result.problem) for result in results if result.problem], counts
# not ru_maxrss, which begins with that of the process that started this one
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))
print(json.dumps([*told, peak, room]))
"""


def thirty_three_answers(ram, how):
    """Texts, how many at a time, and the bytes that the engine has left, and that another text takes."""
    done = subprocess.run([sys.executable, "-c", RUN, str(ram), how], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    texts, problems, counts, peak, room = json.loads(done.stdout)
    assert (len(texts), problems) == (33, [])
    assert peak <= ram
    assert counts[0] == counts[1]
    return texts, counts[0], room


@pytest.mark.skipif(sys.platform != "linux", reason="counts as Linux does")
@pytest.mark.parametrize("how", ["resident", "streamed"])
def test_thirty_two_at_a_time_never_take_more_than_they_may(how):
    """Those that there is no room for wait, and all get the same answers."""
    ample = 900 * 10**6
    same, many, (left, each) = thirty_three_answers(ample, how)
    texts, few, _ = thirty_three_answers(ample - left + 8 * each, how)  # what the program takes differs by machine
    assert 1 < few < 32 == many
    assert texts == same
