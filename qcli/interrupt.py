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
def cleans_up() -> Iterator[None]:
    """Let an order to end, or a terminal that is closed, unwind as Ctrl-C does, so that no half of a file is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    usual = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


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
