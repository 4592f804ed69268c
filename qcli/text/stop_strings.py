"""Stop strings: the text of an answer up to the first of them."""

from __future__ import annotations

from collections.abc import Sequence

from qcli.errors import UsageError


class StopStrings:
    """Passes text on up to the first stop string; keeps back an end that may be the start of one."""

    def __init__(self, strings: Sequence[str]) -> None:
        """Raises UsageError for an empty string, and for what is no string."""
        if not isinstance(strings, list | tuple) or not all(isinstance(string, str) for string in strings):
            raise UsageError(f"{strings!r:.60} are no stop strings", "give a text, or a list of texts")
        if not all(strings):
            raise UsageError("a stop string cannot be empty", "leave it out, or give it a text")
        self._strings = tuple(strings)
        self._pending = ""
        self.which: str | None = None  # was found

    @property
    def found(self) -> bool:
        """Whether one of them has come."""
        return self.which is not None

    def push(self, text: str) -> str:
        """The text that may be shown now."""
        if self.found:
            return ""
        self._pending += text
        # the string complete first, of several the longest: so it does not matter how the text is cut
        ends = [(at + len(string), at) for string in self._strings if (at := self._pending.find(string)) >= 0]
        if ends:
            end, start = min(ends)
            self.which = self._pending[start:end]
        size = start if ends else len(self._pending) - self._undecided()
        shown, self._pending = self._pending[:size], "" if ends else self._pending[size:]
        return shown

    def flush(self) -> str:
        """What was kept back, now that no more text comes."""
        shown, self._pending = self._pending, ""
        return shown

    def _undecided(self) -> int:
        """Characters at the end of the text that begin a stop string, as many as there are."""
        longest = max(map(len, self._strings), default=1) - 1
        for size in range(min(longest, len(self._pending)), 0, -1):
            if any(string.startswith(self._pending[-size:]) for string in self._strings):
                return size
        return 0
