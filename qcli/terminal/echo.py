"""The terminal's echo of what is typed, off while a progress bar is drawn: a line typed into it would leave remains of it.

Nothing typed is lost: the terminal keeps it for whoever reads next, who shows it then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def off() -> Callable[[], object]:
    """Turn the echo off; returns what brings it back. Does nothing without a terminal, or in the background."""
    try:
        import termios
    except ImportError:  # Windows
        return lambda: None
    try:
        terminal = sys.stdin.fileno()
        usual = termios.tcgetattr(terminal)
    except (AttributeError, OSError, ValueError, termios.error):
        return lambda: None
    silent = [*usual]
    silent[3] &= ~termios.ECHO
    if not usual[3] & termios.ECHO or not _set(terminal, silent):
        return lambda: None
    return lambda: _set(terminal, usual)


def _set(terminal: int, attributes: list[Any]) -> bool:
    """Set a terminal's attributes unless this process is in the background, where the system would stop it."""
    import termios

    with suppress(OSError, termios.error):
        if os.tcgetpgrp(terminal) == os.getpgrp():
            termios.tcsetattr(terminal, termios.TCSANOW, attributes)
            return True
    return False
