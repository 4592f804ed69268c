"""A program in a terminal that is looked at as a person would: what stands on the screen and above it, with its colours."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from difflib import unified_diff
from pathlib import Path
from time import monotonic, sleep

import pyte

PATIENCE = 20.0  # seconds
_ROWS = 24


class _Screen(pyte.HistoryScreen):
    """What a terminal shows, and has shown."""

    def __init__(self, answer: Callable[[str], None], columns: int) -> None:
        """answer: takes what the terminal tells of itself, such as where the cursor is."""
        super().__init__(columns, _ROWS, history=10_000, ratio=1e-9)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        """Tell the program something."""
        self._answer(data)


class Looked:
    """A terminal whose lines are waited for."""

    def type(self, keys: str) -> None:
        """Press keys."""
        raise NotImplementedError

    def lines(self) -> list[str]:
        """All lines so far, without the blank ones at the end."""
        raise NotImplementedError

    def wait(self, text: str, times: int = 1) -> None:
        """Wait until a text stands so many times on the screen, or above it."""
        self.wait_for(lambda lines: "\n".join(lines).count(text) >= times, text)

    def wait_for(self, condition: Callable[[list[str]], bool], what: str = "what is waited for") -> None:
        """Wait until the lines are as they should be."""
        until = monotonic() + PATIENCE
        while not condition(lines := self.lines()):
            assert monotonic() < until, f"{what!r} does not come:\n" + "\n".join(lines)
            self.pause()

    def pause(self) -> None:
        """Let the program go on for a moment."""
        sleep(0.02)

    def say(self, text: str) -> None:
        """Type a line at a prompt, and wait for the next one."""
        last = text.rpartition("\r")[2].split()[-1][-8:]
        self.type(text)
        self.wait_for(lambda lines: lines[-1].endswith(last), text)
        self.enter()

    def enter(self) -> None:
        """Press Enter at a prompt, and wait for the next one."""
        self.type("\r")
        self.wait_for(lambda lines: lines[-1] == ">", "a prompt")


class Terminal(Looked):
    """A program in a terminal of so many columns."""

    def __init__(self, columns: int, *command: str, **environment: str) -> None:
        import fcntl
        import pty
        import termios

        self._screen = _Screen(self.type, columns)
        self._stream = pyte.ByteStream(self._screen)
        self._mine, theirs = pty.openpty()
        self._set_size = lambda columns: fcntl.ioctl(
            self._mine, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0)
        )
        self._set_size(columns)
        plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.child = subprocess.Popen(
            [sys.executable, *command], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env=plain | {"TERM": "xterm-256color"} | environment, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(theirs)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._mine, keys.encode())

    def pause(self) -> None:
        """Read what has come, or comes in a moment."""
        if self._read(0.1):
            while self._read(0.002):  # what belongs to it
                pass

    def resize(self, columns: int) -> None:
        """Make the window as wide, or narrow."""
        self._read(0)
        self._screen.resize(_ROWS, columns)
        self._set_size(columns)
        self.child.send_signal(signal.SIGWINCH)

    def end(self) -> int:
        """Wait for the program's end; its exit code."""
        until = monotonic() + PATIENCE
        while self.child.poll() is None or self._read(0):
            assert monotonic() < until, "\n".join(self.lines())
            self._read(0.05)
        return self.child.returncode

    def close(self) -> None:
        """Stop the program, whatever it does."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self._mine)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def lines(self) -> list[str]:
        """All lines so far, without the blank ones at the end."""
        return _whole("".join(cell.data for cell in row) for row in self._rows())

    def styled(self) -> list[str]:
        """The same, with the style of each run of cells before it: `‹bold cyan›text‹›`."""
        return _whole(_styled(row) for row in self._rows())

    def _rows(self) -> list[list[pyte.screens.Char]]:
        screen = self._screen
        return [_cells(row) for row in [*screen.history.top, *(screen.buffer[y] for y in range(screen.lines))]]

    def _read(self, seconds: float) -> bool:
        if not select.select([self._mine], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._mine, 65536)
        except OSError:  # how Linux says that the other end is closed
            return False
        self._stream.feed(data)
        return bool(data)


class Tmux(Looked):
    """The same in tmux."""

    def __init__(self, columns: int, *command: str, **environment: str) -> None:
        self._socket = f"qcli-{os.getpid()}-{monotonic():.6f}"
        words = [f"{name}={value}" for name, value in environment.items()]
        unset = [word for name in ("NO_COLOR", "COLUMNS", "LINES") for word in ("-u", name)]
        size = "-x", str(columns), "-y", str(_ROWS)
        options = "status off", "remain-on-exit on", "history-limit 10000", "default-terminal xterm-256color"
        start = [word for option in options for word in ("set", "-g", *option.split(), ";")]
        self._tmux(*start, "new-session", "-d", *size, "env", *unset, *words, sys.executable, *command)

    def _tmux(self, *words: str) -> str:
        given = ["tmux", "-L", self._socket, "-f", os.devnull, *words]
        return subprocess.run(given, check=True, capture_output=True, text=True).stdout

    def type(self, keys: str) -> None:
        """Press keys."""
        for part in re.findall(r"[\x00-\x1f\x7f]+|[^\x00-\x1f\x7f]+", keys):
            if part.isprintable():
                self._tmux("send-keys", "-l", part)
            else:
                self._tmux("send-keys", "-H", *(f"{ord(key):02x}" for key in part))

    def resize(self, columns: int) -> None:
        """Make the window as wide, or narrow."""
        self._tmux("resize-window", "-x", str(columns))

    def end(self) -> int:
        """Wait for the program's end; its exit code."""
        until = monotonic() + PATIENCE
        while self._tmux("display-message", "-p", "#{pane_dead}").strip() != "1":
            assert monotonic() < until, "\n".join(self.lines())
            sleep(0.02)
        return int(self._tmux("display-message", "-p", "#{pane_dead_status}").strip() or 0)  # tmux may not know it yet

    def close(self) -> None:
        """Stop the program, whatever it does."""
        self._tmux("kill-server")

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def lines(self) -> list[str]:
        """All lines so far, without the blank ones at the end."""
        captured = self._tmux("capture-pane", "-p", "-S", "-").split("\n")
        return _whole(line for line in captured if not line.startswith("Pane is dead"))

    def styled(self) -> list[str]:
        """The same, with the style of each run of cells before it: `‹bold cyan›text‹›`."""
        captured = self._tmux("capture-pane", "-p", "-e", "-S", "-").split("\n")
        screen = pyte.Screen(1000, len(captured))
        pyte.Stream(screen).feed("\r\n".join(captured))
        shown = [_styled(_cells(screen.buffer[y])) for y in range(screen.lines)]
        return _whole(line for line in shown if not line.startswith("Pane is dead"))


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _cells(row: dict[int, pyte.screens.Char]) -> list[pyte.screens.Char]:
    return [row[x] for x in range(max(row, default=-1) + 1)]


def _whole(lines: Iterable[str]) -> list[str]:
    return "\n".join(line.rstrip() for line in lines).rstrip().split("\n")


def _styled(row: list[pyte.screens.Char]) -> str:
    shown, before = "", ""
    for cell in row:
        words = [name for name in ("bold", "italics", "underscore", "strikethrough", "reverse") if getattr(cell, name)]
        style = " ".join([*words, *([cell.fg] if cell.fg != "default" else [])])
        if style != before:
            shown += f"‹{style}›"
            before = style
        shown += cell.data
    return shown.rstrip() + ("‹›" if before else "")


def check(kept: Path, seen: list[str]) -> None:
    """Compare lines with those of a file; with QCLI_KEEP_SCREENS=1 they are written there instead."""
    text = "\n".join(seen) + "\n"
    if os.environ.get("QCLI_KEEP_SCREENS"):
        kept.write_text(text, "utf-8")
    differ = [*unified_diff(kept.read_text("utf-8").splitlines(), seen, kept.name, "seen", lineterm="")]
    assert not differ, "\n".join(differ)
