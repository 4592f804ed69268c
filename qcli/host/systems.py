"""Small things that Windows, macOS and Linux do each in its own way; what is larger has a file of its own beside this one."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    import subprocess

_CPUINFO = Path("/proc/cpuinfo")
_NICENESS = 10
_PATIENCE = 5.0  # seconds for a program of the system
_NEW_PROCESS_GROUP = 0x200  # CREATE_NEW_PROCESS_GROUP of the Windows API


def words_of(line: str) -> list[str]:
    """A line as the system's shell takes it apart: on Windows a backslash is no quote. Raises ValueError for an open quote."""
    import shlex

    if sys.platform == "win32":
        return [word.strip('"') for word in shlex.split(line, posix=False)]
    return shlex.split(line)


def usual_editor() -> str:
    """The editor that every such system has; "" where none can be counted on."""
    return "notepad" if sys.platform == "win32" else ""


def terminal_device() -> str:
    """The file that is the terminal itself, wherever stdout and stderr go."""
    return "CONOUT$" if sys.platform == "win32" else "/dev/tty"


def has_modes() -> bool:
    """Whether a terminal is a file whose modes can be changed; on Windows it is a console."""
    return sys.platform != "win32"


def encoding_of_pipes() -> str | None:
    """What is written to pipes and files, where the system's own is a code page of another time; None: the usual one."""
    return "utf-8" if sys.platform == "win32" else None


def reader_has_left(problem: OSError) -> bool:
    """Whether writing to a pipe failed as nobody reads it any more, which Windows tells as a wrong argument."""
    return problem.errno == errno.EPIPE or (sys.platform == "win32" and problem.errno == errno.EINVAL)


def claim(listener: socket.socket) -> None:
    """Before a socket is bound: take an address that a program has just left. On Windows that is so, and this would let
    two programs listen at once."""
    if sys.platform != "win32":
        import socket

        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def on_its_own() -> dict[str, Any]:
    """How a process is started that a terminal's Ctrl-C does not reach, and that `end` ends with all that it has started."""
    if sys.platform == "win32":
        return {"creationflags": _NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that was started `on_its_own`, and those that it has started; on Windows these only while it runs."""
    with suppress(OSError):
        if sys.platform == "win32":
            if process.poll() is None:
                _end_tree(process.pid)
            process.kill()
        else:
            import signal

            os.killpg(process.pid, signal.SIGKILL)


def _end_tree(number: int) -> None:
    """On Windows, where no call does it: by the system's own program, if it is there."""
    import subprocess

    program = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "taskkill.exe")
    command = [program, "/F", "/T", "/PID", str(number)]
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE)


def step_back() -> None:
    """Have this thread yield to others: on Linux, where each has a niceness; elsewhere a process has one for all."""
    if sys.platform == "linux":
        import threading

        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def processor_name() -> str:
    """The maker's name of the processor, as "AMD EPYC 7B13"; "" where the system does not tell it."""
    import platform
    import subprocess

    if sys.platform == "darwin":
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return asked.stdout.strip()
    if sys.platform == "win32" or not os.access(_CPUINFO, os.R_OK):
        return platform.processor()
    lines = (line.split(":", 1) for line in _CPUINFO.read_text("utf-8", "replace").splitlines() if ":" in line)
    return next((value.strip() for key, value in lines if key.strip() == "model name"), "")
