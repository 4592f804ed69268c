"""Calling a function of a Python file in a process of its own, which may take so long and say so much."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from qcli.host.systems import end, on_its_own
from qcli.tools.arguments import problem_with
from qcli.tools.call import ToolCall
from qcli.tools.tools_file import ToolsFile
from qcli.wording import counted

_WORKER: Final = Path(__file__).with_name("worker.py")
_GRACE_S: Final = 0.1  # for a process that was killed to be gone


@dataclass(frozen=True)
class Limits:
    """What a call may take."""

    seconds: float = 60.0
    characters: int = 16_000  # of its result: some 4,000 tokens; the rest is left out


@dataclass(frozen=True)
class Result:
    """What a call gave back, as the model is told it."""

    text: str
    ok: bool
    seconds: float = 0.0


def run_call(file: ToolsFile, call: ToolCall, limits: Limits) -> Result:
    """Call a tool. What goes wrong is a result, too, for the model to read; Ctrl-C ends the process and passes on."""
    tool = file.tools.get(call.name)
    if tool is None or file.functions is None:
        return Result(f"Error: there is no tool {call.name}; there are {', '.join(file.tools.names)}", False)
    if wrong := problem_with(tool, call.arguments):
        return Result(f"Error: {wrong}", False)
    began = perf_counter()
    said = _said(file.functions, call, limits)
    seconds = perf_counter() - began
    if said is None:
        return Result(f"Error: {call.name} took more than {limits.seconds:g} seconds and was ended", False, seconds)
    try:
        found = json.loads(said)
        text, ok = str(found["result" if "result" in found else "error"]), "result" in found
    except (ValueError, KeyError, TypeError, RecursionError):
        return Result(f"Error: the process of {call.name} ended early", False, seconds)
    return Result(bounded(text if ok else f"Error: {text}", limits), ok, seconds)


def bounded(text: str, limits: Limits) -> str:
    """The beginning of a result that is too long, and that it is."""
    if len(text) <= limits.characters:
        return text
    return f"{text[: limits.characters]}\n[the rest was left out: at most {counted(limits.characters, 'character')}]"


def _said(path: Path, call: ToolCall, limits: Limits) -> bytes | None:
    """What the worker has written; None if it took too long."""
    command = [sys.executable, str(_WORKER), str(path), call.name, str(limits.characters)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **on_its_own()
    )
    try:
        said: bytes = process.communicate(json.dumps(call.arguments).encode(), timeout=limits.seconds)[0]
        return said
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started."""
    end(process)
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
