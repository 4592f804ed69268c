"""llama.cpp on the same file, by llama-cpp-python, in a process of its own: if it crashes, qcli goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from qcli.bench.cases import Case
from qcli.errors import QcliError
from qcli.host.packages import how_to_install

NAME = "llama.cpp"
_WORKER = "qcli.bench.peer_worker"


def require_peer() -> None:
    """Raises QcliError if llama-cpp-python is not installed."""
    if find_spec("llama_cpp") is None:
        raise QcliError("--peer needs llama-cpp-python, which is not installed", how_to_install("peer"))


class Peer:
    """The process of the peer; a context manager. The process loads the file at the first `run`."""

    def __init__(self, path: Path, ctx: int, kv_type: str = "f16") -> None:
        self._open = ExitStack()
        # not a pipe, which would fill up and block llama.cpp, as nobody reads its log unless it fails
        self._log = self._open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", _WORKER, str(path), str(ctx), kv_type],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.about: dict[str, str] = {}  # name, version and CPU features, known after the first run

    def run(self, case: Case) -> float:
        """Seconds of one repetition. Raises QcliError if llama.cpp fails or crashes."""
        answer = self._ask(asdict(case))
        self.about = {"name": NAME, **answer["about"]}
        return float(answer["seconds"])

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()
        self._open.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None
        assert answers is not None
        try:
            questions.write(json.dumps(question) + "\n")
            questions.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else self._ended()
        if "error" in answer:
            _failed(answer["error"])
        return answer

    def _ended(self) -> NoReturn:
        code = self._process.wait()
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        _failed(how + (f": {lines[-1].strip()}" if lines else ""))


def _failed(how: str) -> NoReturn:
    raise QcliError(f"{NAME} {how}", "leave out --peer, or try another version of llama-cpp-python")
