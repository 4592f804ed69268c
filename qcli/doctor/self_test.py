"""The self-test in a process of its own, so that a kernel that crashes ends that one, and is told.

The process, `python -m qcli.doctor.self_test`, writes lines of JSON: {"stage": …, "fraction": …}, or a finding.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from qcli.doctor import engine_trial, kernel_twins
from qcli.doctor.finding import FAIL, MAKE_ANEW, Check, Finding, examine
from qcli.progress import Progress

_ALL: Final = "all"
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
    stage = "starting"
    with process:
        try:
            for line in process.stdout or ():
                told = json.loads(line)
                if "stage" in told:
                    stage = told["stage"]
                    progress(stage, told["fraction"])
                else:
                    yield Finding(**told)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        yield _crashed(process.returncode, stage)


def _crashed(code: int, stage: str) -> Finding:
    how = signal.Signals(-code).name if code < 0 else f"exit code {code:#x}"
    said = f"compiled kernels crash this processor's programs ({how}, at: {stage})"
    return Finding("self-test", FAIL, said, MAKE_ANEW, {"code": code, "stage": stage})


def _tests(every: bool, progress: Progress) -> Iterator[tuple[str, Finding]]:
    checks = [
        Check("embedded model", engine_trial.check),
        Check("kernels", lambda told: kernel_twins.check(every, told)),
    ]
    return examine({"self-test": checks}, progress)


def main(words: list[str]) -> None:
    """What the process does."""
    for _, finding in _tests(_ALL in words, lambda stage, fraction: _tell(stage=stage, fraction=fraction)):
        _tell(**asdict(finding))


def _tell(**said: Any) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
