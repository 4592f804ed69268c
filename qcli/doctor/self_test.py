"""The self-test in a process of its own, so that a kernel that crashes ends that one, and is told.

The process, `python -m qcli.doctor.self_test`, writes lines of JSON: {"stage": …, "fraction": …}, or a finding.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from qcli.doctor.finding import FAIL, MAKE_ANEW, Check, Finding, examine
from qcli.host import temporary
from qcli.interrupt import EXIT_CODE
from qcli.progress import Progress
from qcli.wording import duration

_ALL: Final = "all"
_SILENCE = 300  # seconds; a slow machine compiles the largest kernel in a minute
_SECOND = 1.0
_MODULE: Final = ("-P", "-m", "qcli.doctor.self_test")


def check(every: bool, progress: Progress) -> Iterator[Finding]:
    """Run it; every: whether kernels of all types are tried. A crash is a finding."""
    command = [sys.executable, *_MODULE, *([_ALL] if every else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        process = subprocess.Popen(command, env=environment, text=True, encoding="utf-8", **pipes)
    except OSError:  # no such interpreter, as in a frozen program
        yield from (finding for _, finding in _tests(every, progress))
        return
    stage, watch = "starting", _Watch(process)
    with process:
        try:
            for line in process.stdout or ():
                watch.news = True
                told = json.loads(line)
                if "stage" in told:
                    stage = told["stage"]
                    progress(stage, told["fraction"])
                else:
                    yield Finding(**told)
        except BaseException:
            process.kill()
            raise
    if watch.hung:
        said = f"the self-test said nothing for {duration(_SILENCE)}, and was ended (at: {stage})"
        yield Finding("self-test", FAIL, said, MAKE_ANEW, {"stage": stage})
    elif process.returncode:
        yield _crashed(process.returncode, stage)


class _Watch:
    """Ends a process that gives no news for too long, as a kernel may wait for what never comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.news, self.hung = False, False
        self._process = process
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        """Count seconds of our own: where all is suspended, none pass."""
        silent = 0
        while silent < _SILENCE:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_SECOND)
                return
            silent = 0 if self.news else silent + 1
            self.news = False
        self.hung = True
        self._process.kill()


def _crashed(code: int, stage: str) -> Finding:
    how = signal.Signals(-code).name if code < 0 else f"exit code {code:#x}"
    said = f"compiled kernels crash this processor's programs ({how}, at: {stage})"
    return Finding("self-test", FAIL, said, MAKE_ANEW, {"code": code, "stage": stage})


def _tests(every: bool, progress: Progress) -> Iterator[tuple[str, Finding]]:
    from qcli.doctor import engine_trial, kernel_twins  # all kernels, which only that process needs

    checks = [
        Check("embedded model", engine_trial.check),
        Check("kernels", lambda told: kernel_twins.check(every, told)),
    ]
    return examine({"self-test": checks}, progress)


def main(words: list[str]) -> None:
    """What the process does; Ctrl-C, which reaches it, too, ends it at once, whatever is compiled or computed."""
    signal.signal(signal.SIGINT, lambda *_: _leave())
    for _, finding in _tests(_ALL in words, lambda stage, fraction: _tell(stage=stage, fraction=fraction)):
        _tell(**asdict(finding))


def _leave() -> None:
    temporary.remove_all()
    os._exit(EXIT_CODE)


def _tell(**said: Any) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
