"""Ctrl-C while there is nothing to keep yet."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from qcli import console

EXIT_CODE = 130


@contextmanager
def ends_all(bar: console.status) -> Iterator[None]:
    """Let Ctrl-C end the program at once: a KeyboardInterrupt gets lost in the compiler's callbacks."""

    def leave(number: int, frame: FrameType | None) -> None:
        bar.close()
        console.leave(EXIT_CODE)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
