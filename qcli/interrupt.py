"""Ctrl-C while there is nothing to keep yet."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from qcli import console

EXIT_CODE = 130


def raises() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on; where it is ignored, as in background jobs, it stays so."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def cleans_up() -> Iterator[None]:
    """Let an order to end, or a terminal that is closed, unwind as Ctrl-C does, so that no half of a file is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # nohup's is ignored
    usual = {number: signal.signal(number, signal.default_int_handler) for number in heard}
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

    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
