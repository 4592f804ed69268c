"""Fixtures for all tests."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: its threads would spin beside those of other tests

import pytest
import suite_kernels
from fake_engine import TellingEngine
from foreign_models import no_models_of_others
from places import DATA
from stand_in_hub import Servers

from qcli.catalog.resolve import resolve
from qcli.cli import invoke
from qcli.forecast import forecast, survey
from qcli.gguf.file import GGUFFile
from qcli.host import folders
from qcli.runtime import engine
from qcli.runtime.engine import Engine
from qcli.settings.declared import SETTINGS
from qcli.text.tokenizer import Tokenizer
from quant import team
from quant.prepare import compile_missing

# Between replays of a test Python works for long; helpers that spin meanwhile would take the cores from other tests.
team.SPINS_BEFORE_NAP = 1_000
# A test that does not say how many threads is about something else; two that wait for each other are slow beside other tests.
for module in (engine, forecast, survey):
    module.default_threads = lambda: 1

gc.disable()  # until all tests are collected: of what is made meanwhile, nothing goes
_LONG = {"test_cpu_units.py"}  # each of its tests compiles for another processor, 35 s with an empty kernel cache
_MANY = 300  # tests; fewer compile what they use as they come to it

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs: commands would never end
    signal.signal(signal.SIGINT, signal.default_int_handler)
for name in (
    "SIGHUP",
    "SIGQUIT",
):  # likewise with nohup; programs that are started have them as usual, the suite ignores them
    if (number := getattr(signal, name, None)) and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """No workers for a choice of tests, which are quicker without; None: as many as pytest-xdist chooses."""
    return 0 if config.option.keyword or any(".py" in given for given in config.args) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that take longest first, so that no worker is left with one when the others are done."""
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Before many tests of several workers: compile all kernels that the cache lacks, in several processes.

    The first worker does so before it tells what it collected, and until all have told that no test begins. Without workers
    (`-n0`) tests compile what they use as they come to it: under emulation it is compiled elsewhere, or takes hours.
    """
    gc.freeze()
    gc.set_threshold(100_000)
    gc.enable()
    if len(session.items) < _MANY or session.config.option.collectonly:
        return
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        compile_missing(suite_kernels.declared())


@pytest.fixture(scope="session")
def storyteller() -> Path:
    """The embedded model's file."""
    return resolve(None)[0]


@pytest.fixture(scope="session")
def storyteller_tokenizer(storyteller) -> Tokenizer:
    return Tokenizer.from_gguf(storyteller)


@pytest.fixture
def telling(monkeypatch, storyteller, storyteller_tokenizer) -> TellingEngine:
    """In place of every engine, one that answers "A cat sat." and ends its turn; the embedded model's tokenizer is there."""
    read = Tokenizer.from_gguf

    def shared(source: str | Path | GGUFFile) -> Tokenizer:
        path = source.path if isinstance(source, GGUFFile) else source
        return storyteller_tokenizer if path == storyteller else read(source)

    monkeypatch.setattr(Tokenizer, "from_gguf", shared)
    answer = [*storyteller_tokenizer.encode("A cat sat."), min(storyteller_tokenizer.end_ids)]
    engine = TellingEngine(storyteller_tokenizer.vocab_size, 256, answer)
    monkeypatch.setattr(Engine, "load", lambda *_, **__: engine.open())
    return engine


@pytest.fixture
def data_folder(monkeypatch, tmp_path_factory) -> Path:
    """In place of the user's own folders, but for what may be lost, empty ones; no states are kept.

    Nor are there models of other tools: their folders are below its `home`, and the hub's cache is its `hub`.
    """
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setattr(folders, "data", lambda: folder)
    monkeypatch.setattr(folders, "config", lambda: folder / "config")
    monkeypatch.setattr(folders, "state", lambda: folder / "state")
    no_models_of_others(monkeypatch, folder)
    for setting in SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setattr("qcli.llm.store_for", lambda *_: None)
    return folder


@pytest.fixture
def type_line(monkeypatch, capsys, data_folder):
    """Run one command line in this process; its exit code, stdout and stderr."""

    def run(*arguments: str, piped: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped.encode()), "utf-8"))
        code = invoke(list(arguments))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(type_line, tmp_path, monkeypatch):
    """Check that a command line, typed in an empty folder, ends in one line and a hint, and leaves nothing there."""
    monkeypatch.chdir(tmp_path)

    def check(line: list[str], code: int, said: str) -> None:
        got, out, err = type_line(*line)
        assert (got, out) == (code, "")
        assert said in err
        assert len(err.splitlines()) == 2
        assert err.splitlines()[1].startswith("hint: ")
        assert list(tmp_path.iterdir()) == []

    return check


@pytest.fixture(scope="session")
def hub_servers():
    with Servers().running() as servers:
        yield servers


@pytest.fixture
def hub(monkeypatch, tmp_path, hub_servers):
    """In place of huggingface.co a server on this machine with one model, an empty cache of downloads, and a token.

    Files are marked in blocks of 32 kB, and nobody waits for the disk, nor for a server that does not ask for it.
    """
    for flush in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, flush, lambda _: None, raising=False)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # the server's threads are of this process, too
    for module in ("transfer", "transfer_part"):
        monkeypatch.setattr(f"qcli.hub.{module}.BLOCK", 1 << 15)
    monkeypatch.setattr("qcli.hub.connection._FIRST_PAUSE", 0.001)
    there = hub_servers.stand_in({"some/Model-GGUF": {"Model-Q4_K_M.gguf": (DATA / "qwen3next.gguf").read_bytes()}})
    monkeypatch.setenv("HF_ENDPOINT", there.address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_SYMLINKS"):
        monkeypatch.delenv(name, raising=False)
    yield there
    sys.setswitchinterval(interval)
