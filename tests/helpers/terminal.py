"""Python in a terminal of its own, and a stream that passes for one."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest


class Terminal(io.StringIO):
    """Takes what a terminal would."""

    def isatty(self) -> bool:
        """As a terminal says."""
        return True


def in_terminal(code, exit_code=0, **environment):
    """What a terminal gets on stdout and stderr together."""
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    mine, theirs = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    child = subprocess.Popen(
        [sys.executable, "-c", f"from qcli import console\n{code}"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=plain | {"TERM": "xterm"} | environment,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(mine, 4096):
            seen += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(mine)
    assert child.wait(60) == exit_code
    return seen.decode()
