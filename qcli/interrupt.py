"""Ctrl-C while there is nothing to keep yet, and in the turns of a chat; Ctrl-Z; and orders to end.

Those come of `kill`, of a terminal that is closed, and of Ctrl-\\.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from time import monotonic
from types import FrameType
from typing import NoReturn

from qcli import console
from qcli.host import temporary
from qcli.terminal import modes

EXIT_CODE = 130

_ORDERS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
_SAME = 1.0  # seconds in which Ctrl-C that is pressed again means what it meant
_Handler = Callable[[int, FrameType | None], None]


def raises() -> None:
    """From now on, let Ctrl-C raise KeyboardInterrupt, and Ctrl-Z and an order to end leave the terminal as it was.

    What is ignored, as Ctrl-C is in background jobs, stays so.
    """
    handlers: dict[int, _Handler] = {signal.SIGINT: signal.default_int_handler, **dict.fromkeys(_ORDERS, _end)}
    if hasattr(signal, "SIGTSTP"):
        handlers |= {signal.SIGTSTP: _stop, signal.SIGCONT: _go_on}
    for number, handler in _heard(handlers).items():
        signal.signal(number, handler)


@contextmanager
def does_nothing() -> Iterator[None]:
    """Let Ctrl-C do nothing, but where somebody within the block hears it."""
    with _meanwhile({signal.SIGINT: lambda number, frame: None}):
        yield


@contextmanager
def raises_once() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt; pressed again while that is obeyed, it does not break what is done then.

    So does an order to end, which is obeyed at the end of the block: what was said so far is kept.
    """
    obeyed = 0.0  # when the last one will be
    orders: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal obeyed
        if monotonic() >= obeyed:
            obeyed = monotonic() + _SAME
            raise KeyboardInterrupt

    def end(number: int, frame: FrameType | None) -> None:
        orders.append(number)
        stop(number, frame)

    try:
        with _meanwhile({signal.SIGINT: stop, **dict.fromkeys(_ORDERS, end)}):
            yield
    finally:
        if orders:
            _end(orders[0], None)


@contextmanager
def asks(end: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C and an order to end call this, whatever is done meanwhile."""
    with _meanwhile(dict.fromkeys((signal.SIGINT, *_ORDERS), lambda number, frame: end())):
        yield


@contextmanager
def cleans_up() -> Iterator[None]:
    """Let an order to end unwind as Ctrl-C does, so that no half of a file is left."""
    with _meanwhile(dict.fromkeys(_ORDERS, signal.default_int_handler)):
        yield


@contextmanager
def gives_back() -> Iterator[None]:
    """Let an order to end put the terminal as it is now, whoever takes it over within the block.

    It unwinds nothing: an exception does not come through an event loop that is just being made or closed.
    """
    put_back = modes.put_back(sys.stdin)

    def end(number: int, frame: FrameType | None) -> None:
        put_back()
        console.leave_line()
        _end(number, frame)

    with _meanwhile(dict.fromkeys(_ORDERS, end)):
        yield


@contextmanager
def ends_all(bar: console.status) -> Iterator[None]:
    """Let Ctrl-C end the program at once: a KeyboardInterrupt gets lost in the compiler's callbacks."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        bar.close()
        temporary.remove_all()
        console.leave(EXIT_CODE)

    with _meanwhile({signal.SIGINT: leave, **dict.fromkeys(_ORDERS, _end)}):
        yield


@contextmanager
def _meanwhile(handlers: Mapping[int, _Handler]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.signal(number, handler) for number, handler in _heard(handlers).items()}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _heard(handlers: Mapping[int, _Handler]) -> dict[int, _Handler]:
    """Those whose signal is not ignored, as nohup has it."""
    return {n: handler for n, handler in handlers.items() if signal.getsignal(n) is not signal.SIG_IGN}


def _end(number: int, frame: FrameType | None) -> None:
    """Take the bar away, give the terminal back, and die of the signal, as the caller would have it."""
    try:
        if console.status.shown:
            console.status.shown.close()
        modes.give_back()
        temporary.remove_all()
    finally:
        _obey(number)


def _stop(number: int, frame: FrameType | None) -> None:
    """Take the bar away, give the terminal back, and be stopped; here it goes on."""
    with console.status.shown.aside() if console.status.shown else nullcontext():
        modes.give_back()
        _obey(number)
    signal.signal(number, _stop)


def _go_on(number: int, frame: FrameType | None) -> None:
    """Take the terminal again, if the program goes on in the foreground."""
    modes.take_again()


def _obey(number: int) -> None:
    """Do what the system does of itself."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
