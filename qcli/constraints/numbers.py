"""Numbers of JSON that come to an end: a grammar allows any number of digits, and a model may not find out of them."""

from __future__ import annotations

from typing import Final

_MOST: Final = 20  # digits in a row; float64 has 17
_DIGITS: Final = b"0123456789"


class DigitRun:
    """The digits that a JSON text ends with, outside of its strings."""

    def __init__(self) -> None:
        self._length = 0
        self._in_string = self._escaped = False

    def push(self, data: bytes) -> None:
        """Add what the text goes on with."""
        for byte in data:
            if self._in_string:
                self._in_string = byte != ord('"') or self._escaped
                self._escaped = byte == ord("\\") and not self._escaped
            else:
                self._in_string = byte == ord('"')
                self._length = self._length + 1 if byte in _DIGITS else 0

    @property
    def is_long(self) -> bool:
        """Whether no more digits are wanted."""
        return self._length >= _MOST
