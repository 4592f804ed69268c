"""Loops: an answer that goes on with what it has just said, again and again.

Repetition alone is no loop: refrains, forms, tables, drawings and code repeat themselves, too. So a passage counts that
comes three times running and fills 60 tokens by that; and 400 tokens where it says nothing, as dots, zeros and bars of a
table do, or stands in a block of code, where nine cells of a grid are written nine times.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

import numpy as np

from qcli.text.code_blocks import CodeReader

TIMES: Final = 3
TOKENS: Final = 60  # 20 tokens three times; the refrain of a song has fewer
TOKENS_OF_CODE: Final = 400  # a grid of nine rows of 40 tokens has fewer
_LONGEST: Final = 1024  # tokens of a passage, some 700 words
_SAYS: Final = 3  # different words
_MOST_OF_LINE: Final = 4096  # characters; of longer lines, passages alone are compared
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]+")  # where no blank parts words, a sign is one
_NUMBER = re.compile(r"(\d+[.):]|[-*+•])\s+")  # of an item: items that say the same are the same


class LoopDetector:
    """Takes an answer token by token, and tells when it has become a loop. A token takes some microseconds, whatever comes."""

    def __init__(self) -> None:
        self._code = CodeReader()
        self._passages = _Passages()
        self._lines = _Lines()
        self._pending = ""  # of a line
        self.found = False

    def skip(self, text: str) -> None:
        """Take what was said before: it repeats nothing, but may have begun a block of code."""
        self._read(text)

    def push(self, id: int, text: str) -> bool:
        """Take a token and the text that it has completed, which may be none; whether the answer is a loop now."""
        needed = TOKENS_OF_CODE if self._code.inside else TOKENS
        passage = self._passages.push(id, text, needed)
        line = self._lines.push(self._read(text), needed)
        self.found = self.found or passage or line
        return self.found

    def _read(self, text: str) -> list[str]:
        """The lines that a text completes."""
        if "\n" not in text:
            self._pending += text if len(self._pending) < _MOST_OF_LINE else ""
            return []
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            self._code.take(line)
        return lines


class _Passages:
    """Compares the last tokens with those before them."""

    def __init__(self) -> None:
        sizes = np.arange(1, _LONGEST + 1)
        self._needed = np.maximum((TIMES - 1) * sizes, TOKENS - sizes).astype(np.int32)
        self._same = np.zeros(_LONGEST, np.int32)  # by size n of a passage: so many tokens equal the n-th before them
        self._ids = np.full(2 * _LONGEST, -1, np.int32)  # the last ones, the last one first, from `_at` on
        self._at = _LONGEST
        self._texts: deque[str] = deque(maxlen=_LONGEST)

    def push(self, id: int, text: str, needed: int) -> bool:
        """Whether the passage that ends here comes often enough, and fills so many tokens, more if it says nothing."""
        equal = self._ids[self._at : self._at + _LONGEST] == id
        self._same += 1
        self._same *= equal
        self._keep(id, text)
        enough = self._same >= self._needed
        size = int(enough.argmax()) + 1
        if not enough[size - 1]:
            return False
        filled = int(self._same[size - 1]) + size
        if filled < needed or filled % size:  # looked at once each time that it is whole
            return False
        return filled >= TOKENS_OF_CODE or _says("".join(list(self._texts)[-size:]))

    def _keep(self, id: int, text: str) -> None:
        if not self._at:
            self._ids[_LONGEST:] = self._ids[:_LONGEST]
            self._at = _LONGEST
        self._at -= 1
        self._ids[self._at] = id
        self._texts.append(text)


class _Lines:
    """Compares lines without their numbers; blank ones between them do not count."""

    def __init__(self) -> None:
        self._last = ""
        self._times = self._tokens = self._of_line = 0

    def push(self, lines: list[str], needed: int) -> bool:
        """Take a token and the lines that it completes; whether the last line comes often enough, as with passages."""
        self._of_line += 1
        return any([self._take(line, needed) for line in lines])

    def _take(self, line: str, needed: int) -> bool:
        said = _NUMBER.sub("", line.strip(), count=1).rstrip()
        if not said:
            return False
        if said != self._last or len(said) >= _MOST_OF_LINE:
            self._last, self._times, self._tokens = said, 0, 0
        self._times += 1
        self._tokens += self._of_line
        self._of_line = 0
        if self._times < TIMES or self._tokens < needed:
            return False
        return self._tokens >= TOKENS_OF_CODE or _says(said)


def _says(text: str) -> bool:
    """Whether there are words enough in it to say something."""
    return len({word.lower() for word in _WORD.findall(text)}) >= _SAYS
