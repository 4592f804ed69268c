"""A line that tells how far work is, drawn where the cursor is and removed at the end; a thread of its own draws it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

from qcli.terminal import modes
from qcli.terminal.progress_line import ProgressLine

_ROW = 100  # columns that a line takes at most


@dataclass(frozen=True)
class Surface:
    """Where a line can be drawn."""

    write: Callable[[str], object]
    columns: Callable[[], int]
    encoding: str
    has_codes: bool  # whether it obeys control codes; every one obeys \r
    dim: Callable[[str], str] = str
    often: float = 0.1  # seconds from one drawing to the next


class Bar:
    """A progress bar with an estimate of the time left; nothing where there is no surface.

    It appears after `delay` seconds, is removed at the end, and may be entered again. With `still` it is drawn only when it
    is updated, so that it takes no time from what is measured. With `alone` nothing that is typed meanwhile is shown.
    """

    shown: ClassVar[Bar | None] = None  # the one that is drawn now

    def __init__(
        self, stage: str, surface: Surface | None, delay: float, *, still: bool = False, alone: bool = False
    ) -> None:
        self._first, self._surface, self._delay, self._still, self._alone = stage, surface, delay, still, alone
        self._line = ProgressLine(stage)
        self._lock = threading.RLock()  # a signal may close it in the midst of an update
        self._over: threading.Event | None = None  # of the time that it is entered
        self._drawn = 0  # characters on the screen
        self._give_back: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        if self._surface:
            self._line.begin(self._first)
            self._over = threading.Event()
            threading.Thread(target=self._run, args=(self._over, self._surface), daemon=True).start()
        return self

    def enter_unless_entered(self) -> None:
        """Enter it now, if that has not been done before."""
        if self._surface and self._over is None:
            self.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, stage: str) -> None:
        """Name what is done now, of which nobody knows yet how long it takes."""
        with self._lock:
            self._line.begin(stage)

    def update(self, stage: str, fraction: float, detail: str = "") -> None:
        """Draw how far the stage is, 0 to 1, and a detail; a new stage starts a new estimate. It fits `Progress`."""
        if self._over is None:
            return
        with self._lock:
            self._line.tell(stage, fraction, detail)
            if self._still and self._surface and Bar.shown is self:
                self._draw(self._surface)

    def close(self) -> None:
        """Remove the bar; closing twice does no harm."""
        if self._over is None:
            return
        self._over.set()
        with self._lock:
            self._over = None
            if Bar.shown is self:
                Bar.shown = None
                self._erase()
                self._give_back()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take it away for the time of the block."""
        with self._lock:
            self._erase()
            yield
            if Bar.shown is self and self._surface:
                self._draw(self._surface)

    def _run(self, over: threading.Event, surface: Surface) -> None:
        if over.wait(self._delay):
            return
        with self._lock:
            if over.is_set():
                return
            Bar.shown = self
            if self._alone:
                self._give_back = modes.take(modes.without_echo, sys.stdin)
            self._draw(surface)
        while not self._still and not over.wait(surface.often):
            with self._lock:
                if not over.is_set():
                    self._draw(surface)

    def _draw(self, surface: Surface) -> None:
        text = self._line.text(min(surface.columns(), _ROW), surface.dim, surface.encoding)
        if surface.has_codes:
            surface.write(f"\r{text}\x1b[K")
        else:
            surface.write(f"\r{text:{self._drawn}}")
        self._drawn = len(text)

    def _erase(self) -> None:
        if self._drawn and self._surface:
            self._surface.write("\r\x1b[2K" if self._surface.has_codes else f"\r{'':{self._drawn}}\r")
        self._drawn = 0
