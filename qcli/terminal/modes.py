"""The modes of the terminal, taken over for a while and given back as they were, whatever ends or stops the program.

With the echo off, what is typed does not get into what is being drawn, and nothing of it is lost: the terminal keeps it for
whoever reads next. Without a terminal, in the background, and on Windows, where nothing is echoed unless it is read, nothing
is done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from qcli.host.systems import has_modes

Attributes = list[Any]  # of termios: input, output, control and local modes, speeds, control characters
Change = Callable[[Attributes], None]

_lock = threading.RLock()  # a signal may come in the midst
_taken: _Taken | None = None  # one at a time


class _Taken:
    """A terminal whose modes are ours for now."""

    def __init__(self, terminal: int, change: Change) -> None:
        self.terminal, self._change = terminal, change
        self._usual: Attributes | None = None  # None: they are not ours
        self._ours: Attributes = []

    def take(self) -> None:
        """Set our modes, unless the echo is off already, as somebody else has taken them, or another job has the terminal."""
        import termios

        with suppress(OSError, termios.error):
            usual, changed = termios.tcgetattr(self.terminal), termios.tcgetattr(self.terminal)
            self._change(changed)
            if usual[3] & termios.ECHO and is_ours(self.terminal):
                self._usual, self._ours = (
                    usual,
                    changed,
                )  # known before they are set: a signal may end the program between
                termios.tcsetattr(self.terminal, termios.TCSANOW, changed)
                self._ours = termios.tcgetattr(self.terminal)

    def give_back(self) -> None:
        """Set the modes that were there, unless somebody else has set others meanwhile."""
        import termios

        usual = self._usual
        with suppress(OSError, termios.error):
            if usual and is_ours(self.terminal) and termios.tcgetattr(self.terminal) == self._ours:
                termios.tcsetattr(self.terminal, termios.TCSANOW, usual)
        self._usual = None  # not before they are set, for the same reason


def take(change: Change, *streams: TextIO | None) -> Callable[[], None]:
    """Change the modes of the first of these streams that is a terminal; returns what gives them back.

    Does nothing where they are taken already: who has taken them first keeps them.
    """
    global _taken
    terminal = _terminal(streams)
    if terminal is None or not has_modes():
        return lambda: None
    with _lock:
        if _taken:
            return lambda: None
        _taken = mine = _Taken(terminal, change)
        mine.take()

    def give_back_mine() -> None:
        global _taken
        with _lock:
            if _taken is mine:
                mine.give_back()
                _taken = None

    return give_back_mine


def put_back(stream: TextIO | None) -> Callable[[], None]:
    """What sets the modes of a terminal as they are now, whoever has changed them meanwhile."""
    terminal = _terminal((stream,))
    if terminal is None or not has_modes():
        return lambda: None
    import termios

    with suppress(OSError, termios.error):
        now = termios.tcgetattr(terminal)

        def set_them() -> None:
            with suppress(OSError, termios.error):
                if is_ours(terminal):
                    termios.tcsetattr(terminal, termios.TCSANOW, now)

        return set_them
    return lambda: None


def without_echo(attributes: Attributes) -> None:
    """A change: what is typed is not shown."""
    import termios

    attributes[3] &= ~termios.ECHO


def give_back() -> None:
    """Give back whatever is taken: before the program ends, or is stopped."""
    with _lock:
        if _taken:
            _taken.give_back()


def take_again() -> None:
    """After the program was stopped, and goes on: take what it had, as the terminal is now."""
    with _lock:
        if _taken:
            _taken.take()


def is_ours(terminal: int) -> bool:
    """Whether this process is in the foreground of a terminal; in the background the system would stop it."""
    return os.tcgetpgrp(terminal) == os.getpgrp()


def _terminal(streams: tuple[TextIO | None, ...]) -> int | None:
    for stream in streams:
        with suppress(OSError, ValueError):
            if stream is not None and os.isatty(stream.fileno()):
                return stream.fileno()
    return None
