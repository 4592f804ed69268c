"""The only module that prints: results to stdout, all else to stderr.

A stream that is not a terminal gets plain text: no colour, no progress bars, no control codes.
Control codes in the output of a model or in the text of a file never reach a terminal, nor does what would turn lines around.
"""

from __future__ import annotations

import codecs
import io
import json as json_text
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TextIO

from qcli.errors import QcliError, UsageError
from qcli.host.systems import encoding_of_pipes, reader_has_left
from qcli.progress import Progress
from qcli.terminal import modes
from qcli.terminal.bar import Bar, Surface
from qcli.terminal.text import (
    Filter,
    clean_json,
    clean_lines,
    columns,
    destination,
    is_any_terminal,
    is_terminal,
    plainer,
    wrapped,
)
from qcli.terminal.text import clean as clean

if TYPE_CHECKING:
    from rich.console import RenderableType

STATUS_DELAY = 0.25  # seconds; shorter work shows no progress bar
_LONG = 2.0  # seconds; shorter work in Python shows none
_NOTEBOOK_COLUMNS = 80
_shown_on_stdout, _shown_on_stderr = Filter(), Filter()
_options: set[str] | None = None  # of the command that was typed; None: of any
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
    codecs.register_error("plainer", plainer)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            encoding = None if stream.isatty() else encoding_of_pipes()
            reconfigure(errors="replace" if stream is sys.stdin else "plainer", encoding=encoding)


def out(text: str) -> None:
    """Write text to stdout without a newline, and flush; end the program quietly if the reader of a pipe has left."""
    _remember(text, sys.stdout)
    _write(_shown_on_stdout(text) if is_any_terminal(sys.stdout) else text)


def screen_columns() -> int:
    """Characters in a line of the terminal that stdout is, as it is now."""
    return columns(sys.stdout)


def encoding() -> str:
    """How stdout writes characters, such as utf-8."""
    return sys.stdout.encoding or "ascii"


def screen(text: str) -> None:
    """Write to stdout, a terminal, what may hold control codes of our own; those of others are out of it already."""
    _remember(text, sys.stdout)
    _write(text)


def json(value: Any) -> None:
    """Write one JSON value and a newline to stdout."""
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    _write(clean_json(json_text.dumps(value, ensure_ascii=ascii_only, indent=2)) + "\n")


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
    """Write a remark to stderr, dim, on lines of its own, which a terminal has broken at words."""
    _dim(wrapped(clean_lines(text), stderr_columns()))


def _dim(lines: str) -> None:
    with Bar.shown.aside() if Bar.shown else nullcontext():
        _to_stderr(_begin_line() + _styled(lines, "2") + "\n")
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
    _dim(clean_lines("\n".join(lines)))


def aside(text: str) -> None:
    """Write a piece of text that is no part of the answer to stderr, dim, without a newline."""
    _remember(text, sys.stderr)
    _to_stderr(_styled(_shown_on_stderr(text), "2"))


def in_place(text: str) -> None:
    """Write a dim line to stderr, a terminal, over the one that this wrote before, and cut to its width; "" removes it."""
    _to_stderr("\r\x1b[K" + _styled(text[: columns(sys.stderr) - 1], "2"))
    _remember(text or "\n", sys.stderr)


def leave_line() -> None:
    """Begin a line after a prompt on stderr that is left as it stands, and have what is pasted come as it is typed again."""
    if is_terminal(sys.stderr):
        _to_stderr("\x1b[?2004l\x1b[?25h\x1b[0m\r\n")


def hint_at(options: set[str] | None) -> None:
    """Let hints name no options but these, those of the command that was typed; None: all."""
    global _options
    _options = options


def error(problem: QcliError) -> None:
    """Write what went wrong, and the hint what to type next, to stderr, on lines of their own."""
    hint = problem.hint if _options is None else problem.hint_with(_options)
    said = [("error:", "1;31", problem.message), ("hint:", "1", hint)]
    texts = [(word, code, wrapped(f"{word} {clean(text)}", stderr_columns())) for word, code, text in said if text]
    lines = "".join(f"{_styled(word, code)}{text.removeprefix(word)}\n" for word, code, text in texts)
    _to_stderr(_begin_line() + lines)
    _remember(lines, sys.stderr)


def fail(problem: QcliError) -> NoReturn:
    """Write an error and end the program at once, from any thread; a progress bar is removed first."""
    if Bar.shown:
        Bar.shown.close()
    error(problem)
    leave(problem.exit_code)


def leave(code: int) -> NoReturn:
    """Flush the streams, give the terminal back, and end the program at once.

    The interpreter's own exit takes 0.5 s more with Numba loaded.
    """
    modes.give_back()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class status(Bar):  # noqa: N801  (reads as a verb: with console.status("loading") as progress)
    """A progress bar on stderr; nothing if stderr is not a terminal."""

    def __init__(self, label: str, quiet: bool = False, still: bool = False) -> None:
        surface = None if quiet or not is_terminal(sys.stderr) else _terminal_surface()
        super().__init__(label, surface, STATUS_DELAY, still=still, alone=True)


class Telling(Bar):
    """Tells how far work in Python is to whoever wants to know: a `Progress`, to be closed when the work is over.

    "auto", or True: to people, in a terminal or a notebook, if it takes long.
    """

    def __init__(self, progress: Progress | Literal["auto"] | bool | None) -> None:
        """Raises UsageError."""
        if not (callable(progress) or progress in ("auto", True, False, None)):
            hint = 'give "auto", False, or a function that takes a stage and a fraction'
            raise UsageError(f"progress cannot be {progress!r:.40}", hint)
        self._given = progress if callable(progress) else None
        super().__init__("loading", _surface_of_python() if progress in ("auto", True) else None, _LONG)

    def __call__(self, stage: str, fraction: float) -> None:
        """Tell how far a stage is."""
        if self._given:
            self._given(stage, fraction)
            return
        self.enter_unless_entered()
        self.update(stage, fraction)


@contextmanager
def silent_keyboard() -> Iterator[None]:
    """Within the block, where stdout is a terminal, show nothing that is typed; the terminal keeps it for who reads next."""
    give_back = modes.take(modes.without_echo, sys.stdin, sys.stdout) if answers_a_person() else lambda: None
    try:
        yield
    finally:
        give_back()


def _terminal_surface() -> Surface:
    encoding = sys.stderr.encoding or "ascii"
    return Surface(_to_stderr, lambda: columns(sys.stderr), encoding, True, lambda text: _styled(text, "2"))


def _surface_of_python() -> Surface | None:
    """Where a person sees what a program in Python tells of itself; None for a pipe, and for tests."""
    if os.environ.get("PYTEST_CURRENT_TEST"):
        return None
    if type(sys.stderr).__module__.startswith("ipykernel"):
        return Surface(_to_stderr, lambda: _NOTEBOOK_COLUMNS, "utf-8", False, often=0.25)
    return _terminal_surface() if is_terminal(sys.stderr) else None


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
    if reader_has_left(problem):
        raise SystemExit(0) from None
    message = f"cannot write to the standard output: {problem.strerror}"
    raise QcliError(message, "check the disk or the file it goes to") from None


def _to_stderr(text: str) -> None:
    with suppress(OSError, ValueError):  # what comes first is shown first, should both go to one place
        sys.stdout.flush()
    with suppress(OSError):  # nobody reads it, and there is nowhere else to say so
        sys.stderr.write(text)
        sys.stderr.flush()
