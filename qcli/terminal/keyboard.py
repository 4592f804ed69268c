"""The keyboard while an answer comes: nothing typed is shown in it, some keys do something, the rest is kept for later."""

from __future__ import annotations

import codecs
import os
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from qcli.host.systems import has_modes
from qcli.terminal import modes

if TYPE_CHECKING:
    from types import TracebackType

CTRL_T = "\x14"

_LEFT_ALONE = 0.05  # seconds between looks at a keyboard that cannot be waited for
_MOST = 1 << 20  # characters that are kept
# What keys without a character send: arrows, function keys, the marks around what is pasted; Escape alone, or before a key.
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[A-Za-z])?")
_WORD = re.compile(r"\S*\s*\Z")


class Keyboard:
    """A context in which keys are read as they are typed; it may be entered again, also within itself.

    Ctrl-C and Ctrl-Z stay what they are. Does nothing without a terminal; in the background, keys are left alone.
    """

    reading: ClassVar[Keyboard | None] = None  # the one that is entered

    def __init__(self) -> None:
        self.keys: dict[str, Callable[[], object]] = {}  # what a key does, in another thread; it must not raise
        self.was_sent = False  # whether what typed() gave last ended with Enter
        self._typed: list[str] = []
        self._entered = 0
        self._end: Callable[[], None] = lambda: None

    def __enter__(self) -> Keyboard:
        self._entered += 1
        if self._entered == 1:
            Keyboard.reading = self
            self._end = _begin_reading(self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if not self._entered:
            Keyboard.reading = None
            self._end()

    def typed(self) -> str:
        """What was typed since it was asked last, as its writer has left it, without the line ends behind it."""
        text, self._typed = "".join(self._typed), []
        self.was_sent = text.endswith(("\r", "\n"))
        return edited(text)

    @property
    def has_typed(self) -> bool:
        """Whether something was typed since it was asked last."""
        return bool(self._typed)

    def put_first(self, text: str) -> None:
        """Have a text that somebody else has read be typed before all that is kept."""
        self._typed[:0] = text

    def _take(self, characters: str) -> None:
        for character in characters:
            if character in self.keys:
                self.keys[character]()
            elif len(self._typed) < _MOST:
                self._typed.append(character)


@contextmanager
def left_to_others() -> Iterator[None]:
    """Within the block, keys are read by somebody else: a question, or an editor."""
    keyboard = Keyboard.reading
    if keyboard:
        keyboard._end()
    try:
        yield
    finally:
        if keyboard:
            keyboard._end = _begin_reading(keyboard._take)


def edited(keys: str) -> str:
    """The text that keys make: lines, of which Backspace, Ctrl-W and Ctrl-U have taken something back, and no other codes.

    An Enter at the end counts for nothing, as what was typed is to be looked at before it is sent.
    """
    text = ""
    for key in _SEQUENCES.sub("", keys.replace("\r\n", "\n").replace("\r", "\n")):
        if key in "\x7f\b":
            text = text[:-1]
        elif key == "\x17":
            text = _WORD.sub("", text, count=1)
        elif key == "\x15":
            text = text[: text.rfind("\n") + 1]
        elif key in "\n\t" or (key >= " " and not "\x80" <= key < "\xa0"):
            text += key
    return text.strip("\n")


def _begin_reading(take: Callable[[str], None]) -> Callable[[], None]:
    """Have a thread read keys; returns what ends that."""
    if sys.stdin is None or not sys.stdin.isatty():
        return lambda: None
    if not has_modes():
        import msvcrt

        return _read_console(msvcrt, take)
    return _read_terminal(sys.stdin.fileno(), take)


def _read_terminal(terminal: int, take: Callable[[str], None]) -> Callable[[], None]:
    give_back = modes.take(_key_by_key, sys.stdin)
    decode = codecs.getincrementaldecoder("utf-8")("ignore").decode
    heard, end_it = os.pipe()

    def read() -> None:
        """Take what is there until there is nothing more and the end was asked for, or the terminal is gone."""
        with suppress(OSError, ValueError):
            while True:
                ready = select.select([terminal, heard], [], [])[0]
                if terminal in ready and modes.is_ours(terminal):
                    keys = os.read(terminal, 4096)
                    if not keys:
                        return
                    take(decode(keys))
                elif heard in ready or select.select([heard], [], [], _LEFT_ALONE)[0]:
                    return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def end() -> None:
        os.close(end_it)
        thread.join()
        os.close(heard)
        give_back()

    return end


def _key_by_key(attributes: modes.Attributes) -> None:
    """A change: keys can be read as they are typed and are not shown; those that send signals still do, but for Ctrl-T."""
    import termios

    attributes[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    attributes[3] |= termios.NOFLSH  # a signal throws away nothing that was typed before it
    attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
    if hasattr(termios, "VSTATUS"):  # macOS
        attributes[6][termios.VSTATUS] = b"\xff"


def _read_console(console: Any, take: Callable[[str], None]) -> Callable[[], None]:
    """On Windows, whose console shows nothing of what is read so; console: msvcrt."""
    over = threading.Event()

    def read() -> None:
        while not over.wait(_LEFT_ALONE):
            while console.kbhit():
                key = console.getwch()
                if key in "\x00\xe0" and console.kbhit():  # an arrow or a function key, whose code follows
                    console.getwch()
                else:
                    take(key)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def end() -> None:
        over.set()
        thread.join()

    return end
