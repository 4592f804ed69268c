"""Ctrl-C in the midst of something that must be finished: it counts a moment later. And of what would not hear of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any, TypeVar

# What `signal` consists of. Python 3.11 also looks for every handler among the members of an enum, which takes ten times as
# long, and every token is computed in such a block.
_system: Any = import_module("_signal")

_POLL = 0.1  # seconds: where waiting for a thread cannot be interrupted, as on Windows

T = TypeVar("T")


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Finish the block before Ctrl-C does what it does, which then happens at the block's end; two microseconds.

    Only where a handler in Python would raise in the midst of it: in the main thread, and not where Ctrl-C is ignored.
    """
    usual = _system.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    _system.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        _system.signal(signal.SIGINT, usual)
        if came:
            usual(*came[-1])


def hearing_interrupts(call: Callable[[], T]) -> T:
    """What a long call of foreign code gives, which would not hear of Ctrl-C: in a thread of its own, left alone by it.

    Only from the main thread, as nobody else is interrupted. What the call raises is raised.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    given: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            given.append(call())
        except BaseException as problem:
            raised.append(problem)

    thread = threading.Thread(target=work, name="foreign call", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL)
    if raised:
        raise raised[0]
    return given[0]
