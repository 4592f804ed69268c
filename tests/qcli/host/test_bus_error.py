"""A mapped model that is cut, replaced or deleted while it is being read, by processes of their own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="a system that lets nobody cut a mapped file")

STORY = ["run", "-m", "model.gguf", "--raw", "Once upon a time", "--temperature", "0", "--max-tokens", "300"]
DISTURBED = """
import os, sys
from pathlib import Path
import {module} as place

def disturbed(*given, **named):
    if moments:
        moments.clear()
        {change}
    return whole(*given, **named)

moments = [True]
model = Path({model!r})
whole = place.{name}
place.{name} = disturbed
os.chdir(model.parent)
from qcli.__main__ import main
main()
"""
CUT = "os.truncate(model, max(4096, model.stat().st_size // 2))"
REPLACE = "os.replace(model.with_name('other'), model)"


@pytest.fixture
def model(storyteller, tmp_path):
    return shutil.copy(storyteller, tmp_path / "model.gguf")


def disturbed(model, change, moment, arguments):
    """What is left of a command that changes its model at the first call of a function."""
    module, name = moment.split(":")
    code = DISTURBED.format(model=str(model), change=change, module=module, name=name)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)


def assert_lost(said):
    first, second = said.decode().splitlines()
    assert first == "error: model.gguf: was truncated, or its disk failed, while it was being read"
    assert second.startswith("hint: ")


@pytest.mark.parametrize("threads", ["1", "2", "4"])
def test_a_model_that_is_cut_ends_the_story_in_one_line(model, threads):
    done = disturbed(model, CUT, "qcli.console:out", [*STORY, "--threads", threads])
    assert (done.returncode, done.stdout) == (1, b",")
    assert_lost(done.stderr)


@pytest.mark.parametrize(
    "moment", ["qcli.gguf.file:read_header", "qcli.llm:Tokenizer.from_gguf", "qcli.llm:Engine.load"]
)
def test_a_model_that_is_cut_before_it_answers(model, moment):
    done = disturbed(model, "os.truncate(model, 4096)", moment, STORY)
    assert (done.returncode, done.stdout) == (1, b"")
    assert_lost(done.stderr)


def test_a_model_that_is_cut_leaves_no_half_of_a_file(model):
    model.with_name("text").write_text(300 * "The cat and the dog went to see the moon. ")
    arguments = ["perplexity", "model.gguf", "text", "--save-logits", "kept"]
    done = disturbed(model, CUT, "qcli.evaluate.log_probs_file:LogProbsWriter.add", arguments)
    assert (done.returncode, done.stdout) == (1, b"")
    assert_lost(done.stderr)
    assert {path.name for path in model.parent.iterdir()} == {"model.gguf", "text"}


@pytest.mark.parametrize("change", [REPLACE, "os.unlink(model)"], ids=["replaced", "deleted"])
def test_a_model_that_is_replaced_or_deleted_tells_its_story_to_the_end(model, change):
    model.with_name("other").write_bytes(bytes(1000))
    done = disturbed(model, change, "qcli.console:out", [*STORY, "--stats"])
    assert done.returncode == 0
    assert len(done.stdout.split()) > 100
    assert b" new at " in done.stderr


LIBRARY = """
import os, resource, sys, qcli
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
llm = qcli.LLM(sys.argv[1])
os.truncate(sys.argv[1], 4096)
print(*llm.generate("Once"))
"""


def test_a_program_that_uses_qcli_has_its_own_way_with_signals(model):
    done = subprocess.run([sys.executable, "-c", LIBRARY, str(model)], capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (-signal.SIGBUS, b"")
