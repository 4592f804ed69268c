"""llama.cpp beside qcli bench: a process that is asked, that may be missing, refuse, crash or hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import HELPERS

from qcli.bench import bandwidth
from qcli.bench.cases import Case
from qcli.bench.peer import Peer, require_peer
from qcli.errors import QcliError
from qcli.host.packages import how_to_install

FAKE = HELPERS / "fake_peer"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of POSIX")


@pytest.fixture
def log(monkeypatch, tmp_path) -> Path:
    """A peer of a few lines is installed; the file says what it was asked."""
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKE), *([inherited] if inherited else [])]))
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setenv("FAKE_PEER_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(bandwidth, "MOST", 1 << 22)
    return tmp_path / "log"


def asked(log: Path) -> list[str]:
    return [line for line in log.read_text("utf-8").splitlines() if not line.startswith("pid")]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_without_the_extra_it_says_what_to_install(monkeypatch, type_line):
    monkeypatch.setattr("qcli.bench.peer.find_spec", lambda _name: None)
    code, out, err = type_line("bench", "--peer")
    assert (code, out) == (1, "")
    assert err == f"error: --peer needs llama-cpp-python, which is not installed\nhint: {how_to_install('peer')}\n"


def test_it_gets_the_same_cases(log):
    require_peer()
    with Peer(Path("some.gguf"), 40, "q8_0") as peer:
        assert peer.run(Case("pp", 10, 0, 3, 4)) > 0
        assert peer.run(Case("tg", 2, 6, 1, 4)) > 0
        assert peer.run(Case("tg", 2, 6, 1, 4)) > 0
    assert peer.about == {"name": "llama.cpp", "version": "9.9", "features": "CPU : SSE3 = 1"}
    prefill = ["context 40 4 4 8 8", "threads 3 3", "decode 4 after 0", "decode 4 after 4", "decode 2 after 8", "end"]
    depth = ["threads 1 1", "decode 4 after 0", "decode 2 after 4", "end"]
    again = ["threads 1 1"]
    decoded = ["decode 1 after 6", "decode 1 after 7", "end"]
    assert asked(log) == prefill + depth + decoded + again + decoded


def test_ratios_are_of_medians(log, type_line):
    code, out, err = type_line("bench", *"-p 16 -n 2 -t 1 -r 2 --peer --json".split())
    assert (code, err) == (0, "")
    for one in json.loads(out):
        peer = one["peer"]
        assert (peer["name"], peer["version"]) == ("llama.cpp", "9.9")
        assert peer["ratio"] == pytest.approx(one["tok_per_s"] / peer["tok_per_s"], rel=1e-3)
    assert asked(log).count("end") == 2 * (1 + 2)  # two tests: once to warm up, then twice


def test_the_table_has_a_column_for_it(log, type_line):
    out = type_line("bench", *"-p 16 -n 2 -t 1 -r 1 --peer".split())[1]
    assert "roofline  llama.cpp  ratio\n" in out
    assert "llama.cpp: llama-cpp-python 9.9\n" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("does", "said"),
    [("refuse", "cannot load some.gguf"), ("fail", "cannot decode 4 tokens"), ("crash", "GGML_ASSERT(false) failed")],
)
def test_what_goes_wrong_there_is_one_line_here(log, monkeypatch, does, said):
    monkeypatch.setenv("FAKE_PEER_DOES", does)
    with Peer(Path("some.gguf"), 40) as peer, pytest.raises(QcliError, match="--peer") as raised:
        peer.run(Case("pp", 4, 0, 1, 4))
    assert raised.value.message.startswith("llama.cpp ")
    assert said in raised.value.message


READ_LITTLE = """
from qcli.bench import bandwidth
from qcli.__main__ import main
bandwidth.MOST = 1 << 22
main()
"""


@posix
def test_an_interrupt_leaves_nobody_behind(log, monkeypatch):
    monkeypatch.setenv("FAKE_PEER_DOES", "hang")
    command = [sys.executable, "-c", READ_LITTLE, "bench", *"-p 16 -n 0 -t 1 --peer".split()]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        until = time.monotonic() + 60
        while not (log.exists() and "decode" in log.read_text("utf-8")) and time.monotonic() < until:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, b"", b"")
    assert not is_alive(int(log.read_text("utf-8").splitlines()[0].split()[1]))
