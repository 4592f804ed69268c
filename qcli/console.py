"""The only module that prints: results to stdout, all else to stderr.

A stream that is not a terminal gets plain text: no colour, no progress bars, no control codes.
Control codes in the output of a model or in the text of a file never reach a terminal.
"""

from __future__ import annotations

import errno
import io
import json as json_text
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TextIO

from qcli.errors import QcliError
from qcli.terminal import echo
from qcli.terminal.text import Filter, columns, destination, is_terminal
from qcli.terminal.text import clean as clean

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

STATUS_DELAY = 0.25  # seconds; shorter work shows no progress bar
_shown_on_stdout, _shown_on_stderr = Filter(), Filter()
_unfinished: dict[object, bool] = {}  # whether the last line is, by where a stream goes: a terminal, a pipe, a file


def answers_a_person() -> bool:
    """Whether stdout is a terminal."""
    return is_terminal(sys.stdout)


def setup() -> None:
    """Replace characters that a stream cannot encode or decode; on Windows, give pipes and files UTF-8.

    Output to a stream that was closed before the start (`>&-`) is dropped.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            encoding = "utf-8" if sys.platform == "win32" and not stream.isatty() else None
            reconfigure(errors="replace", encoding=encoding)


def out(text: str) -> None:
    """Write text to stdout without a newline, and flush; end the program quietly if the reader of a pipe has left."""
    _remember(text, sys.stdout)
    _write(_shown_on_stdout(text) if is_terminal(sys.stdout) else text)


def screen_columns() -> int:
    """Characters in a line of the terminal that stdout is, as it is now."""
    return columns(sys.stdout)


def screen(text: str) -> None:
    """Write to stdout, a terminal, what may hold control codes of our own; those of others are out of it already."""
    _remember(text, sys.stdout)
    _write(text)


def json(value: Any) -> None:
    """Write one JSON value and a newline to stdout."""
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    _write(json_text.dumps(value, ensure_ascii=ascii_only, indent=2) + "\n")


def table(content: RenderableType) -> None:
    """Write anything that Rich renders to stdout; into a pipe in full width."""
    from rich.console import Console

    terminal = is_terminal(sys.stdout)
    drawn = io.StringIO()
    screen = Console(
        file=drawn,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        legacy_windows=False,
        highlight=False,
    )
    if not terminal:
        screen.width = max(80, screen.measure(content, options=screen.options.update(width=10_000)).maximum)
    screen.print(content)
    _write("\n".join(line.rstrip() for line in drawn.getvalue().split("\n")))


def info(text: str) -> None:
    """Write a remark to stderr, dim, on lines of its own."""
    with _bar_aside():
        _to_stderr(_begin_line() + _styled(Filter()(text), "2") + "\n")
        _remember("\n", sys.stderr)


def stderr_columns() -> float:
    """Characters in a line of stderr; infinite for a pipe."""
    return columns(sys.stderr) if is_terminal(sys.stderr) else math.inf


def figures(parts: Iterable[str]) -> None:
    """Write short figures to stderr, as `info` does, with dots between; a terminal's lines are broken at the dots."""
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]} · {part}" if lines else part
        lines[-1:] = [joined] if len(joined) <= stderr_columns() else [*lines[-1:], part]
    info("\n".join(lines))


def aside(text: str) -> None:
    """Write a piece of text that is no part of the answer to stderr, dim, without a newline."""
    _remember(text, sys.stderr)
    _to_stderr(_styled(_shown_on_stderr(text), "2"))


def in_place(text: str) -> None:
    """Write a dim line to stderr, a terminal, over the one that this wrote before, and cut to its width; "" removes it."""
    _to_stderr("\r\x1b[K" + _styled(text[: columns(sys.stderr) - 1], "2"))
    _remember(text or "\n", sys.stderr)


def error(problem: QcliError) -> None:
    """Write what went wrong, and the hint what to type next, to stderr, on lines of their own."""
    lines = f"{_styled('error:', '1;31')} {clean(problem.message)}\n"
    if problem.hint:
        lines += f"{_styled('hint:', '1')} {clean(problem.hint)}\n"
    _to_stderr(_begin_line() + lines)
    _remember(lines, sys.stderr)


def fail(problem: QcliError) -> NoReturn:
    """Write an error and end the program at once, from any thread; a progress bar is removed first."""
    if status.shown:
        status.shown.close()
    error(problem)
    leave(problem.exit_code)


def leave(code: int) -> NoReturn:
    """Flush the streams and end the program at once: the interpreter's own exit takes 0.5 s more with Numba loaded."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class status:  # noqa: N801  (reads as a verb: with console.status("loading") as progress)
    """A progress bar on stderr with an estimate of the time left; nothing if stderr is not a terminal.

    It appears after STATUS_DELAY, is removed at the end, and may be entered again. With `still` it is drawn only when it
    is updated, so that it takes no time from what is measured.
    """

    shown: ClassVar[status | None] = None  # the one that is drawn now

    def __init__(self, label: str, quiet: bool = False, still: bool = False) -> None:
        self._first_label = self._label = label
        self._still = still
        self._visible = is_terminal(sys.stderr) and not quiet
        self._fraction: float | None = None
        self._detail = ""
        self._lock = threading.RLock()  # a signal may close it in the midst of an update
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._echo_again: Callable[[], object] = lambda: None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> status:
        if self._visible:
            self._label, self._fraction, self._detail = self._first_label, None, ""
            self._timer = threading.Timer(STATUS_DELAY, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, stage: str, fraction: float, detail: str = "") -> None:
        """Draw how far the stage is, 0 to 1, and a detail; a new stage starts a new estimate. It fits `Progress`."""
        if self._timer is None:
            return
        with self._lock:
            new = stage != self._label
            self._label, self._fraction, self._detail = stage, fraction, detail
            if self._bar is not None:
                self._draw(self._bar, new)

    def close(self) -> None:
        """Remove the bar; closing twice does no harm."""
        if self._timer is None:
            return
        self._timer.cancel()
        with self._lock:
            self._timer = None
            if self._bar is not None:
                self._bar.stop()
                self._echo_again()
                self._bar = self._task = status.shown = None

    def _show(self) -> None:
        with self._lock:
            if self._timer is not None:
                status.shown = self
                self._bar = _progress_bar(self._still)
                self._draw(self._bar, new=True)
                self._echo_again = echo.off()
                self._bar.start()

    def _draw(self, bar: Progress, new: bool) -> None:
        if new and self._task is not None:
            bar.remove_task(self._task)
            self._task = None
        total = None if self._fraction is None else 1.0
        if self._task is None:
            self._task = bar.add_task(self._label, total=total)
        described = f"{self._label} {self._detail}".rstrip()
        completed = self._fraction or 0.0
        bar.update(self._task, completed=completed, total=total, description=described, refresh=self._still)


@contextmanager
def _bar_aside() -> Iterator[None]:
    """Take the bar away for the time of the block."""
    with status.shown._lock if status.shown else nullcontext():
        bar = status.shown and status.shown._bar
        if bar:
            bar.stop()
        yield
        if bar:
            bar.start()


def _progress_bar(still: bool) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True, force_terminal=True),
        auto_refresh=not still,
        transient=True,
    )


def _remember(text: str, stream: TextIO) -> None:
    """Note whether this text leaves a line unfinished where the stream goes."""
    if text:
        _unfinished[destination(stream)] = not text.endswith("\n")


def _begin_line() -> str:
    return "\n" if _unfinished.get(destination(sys.stderr)) else ""


def _styled(text: str, code: str) -> str:
    if not is_terminal(sys.stderr) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as problem:
        _output_failed(problem)


def _output_failed(problem: OSError) -> NoReturn:
    """End the program quietly if the reader of a pipe has left; else raise QcliError.

    What stdout still buffers is dropped: the interpreter would complain about it at exit.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # Windows reports a pipe whose reader left as EINVAL
    if problem.errno == errno.EPIPE or (sys.platform == "win32" and problem.errno == errno.EINVAL):
        raise SystemExit(0) from None
    message = f"cannot write to the standard output: {problem.strerror}"
    raise QcliError(message, "check the disk or the file it goes to") from None


def _to_stderr(text: str) -> None:
    with suppress(OSError, ValueError):  # what comes first is shown first, should both go to one place
        sys.stdout.flush()
    with suppress(OSError):  # nobody reads it, and there is nowhere else to say so
        sys.stderr.write(text)
        sys.stderr.flush()
