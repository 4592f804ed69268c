"""The clipboard of whoever sits at the terminal, also at the far end of ssh: OSC 52, which most terminals obey."""

from __future__ import annotations

import os
import subprocess
from base64 import b64encode
from contextlib import suppress

from qcli.host.systems import terminal_device

MOST = 74_994  # bytes of Base64: what every terminal that obeys takes
_PATIENCE = 2  # seconds for tmux


def sequence(text: str) -> str:
    """What a terminal is sent to put a text into its clipboard."""
    return f"\x1b]52;c;{b64encode(text.encode('utf-8', 'replace')).decode()}\x07"


def copy(text: str) -> bool:
    """Put a text into the clipboard; False if there is no terminal to ask. Whether the terminal obeys is not known."""
    return (bool(os.environ.get("TMUX")) and _by_tmux(text)) or _send(sequence(text))


def _by_tmux(text: str) -> bool:
    """Have tmux do it, which as it is usually set up takes no such sequence from a program; from tmux 3.2 on."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["tmux", "load-buffer", "-w", "-"],
            input=text.encode("utf-8", "replace"),
            capture_output=True,
            timeout=_PATIENCE,
        )
        return not done.returncode
    return False


def _send(codes: str) -> bool:
    """Write to the terminal itself, wherever stdout and stderr go."""
    try:
        with open(terminal_device(), "w", encoding="ascii") as terminal:
            terminal.write(codes)
    except OSError:
        return False
    return True
