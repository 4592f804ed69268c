"""Texts cut where no token can reach across, so that not all tokens of a long one need be made at once, nor any word's twice.

A cut lies between a letter or digit and a space or line feed with a letter or digit after it: but for one whose words may
be several, no pre-tokenizer has such a border within a word, and the word after it begins with the space. Or it lies behind
a line feed, between a letter, digit or sign and a letter or digit. Special tokens near a cut are looked for by their text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache

PIECE = 1 << 18  # characters, or more up to the next border: tokens of it take some 30 MB

_LETTERS = "0-9A-Za-zÀ-ÖØ-öø-ɏΑ-ΡΣ-Ωα-ωА-яぁ-ゖァ-ヺ一-龥가-힣"  # only such as every version of Unicode knows
_SIGNS = re.escape(".,:;!?()[]{}<>\"'`*#=-…”’、。！？：；，）」』】")  # likewise: some that lines end with
_BEHIND_LINE = f"(?<=[{_LETTERS}{_SIGNS}]\n)(?=[{_LETTERS}])"


@cache  # and compiled only when asked for: so large a set takes 2 ms each time that it is named
def between_lines() -> re.Pattern[str]:
    """The borders at line feeds alone."""
    return re.compile(f"(?<=[{_LETTERS}])(?=\n[{_LETTERS}])|{_BEHIND_LINE}")


@cache
def between_words() -> re.Pattern[str]:
    """All borders."""
    return re.compile(f"(?<=[{_LETTERS}])(?=[ \n][{_LETTERS}])|{_BEHIND_LINE}")


@cache
def _wordy() -> re.Pattern[str]:
    """What begins with a letter or digit, or has one beside a space or line feed."""
    return re.compile(f"(.*[ \n])?[{_LETTERS}]|.*[{_LETTERS}][ \n]", re.DOTALL)


def reaching(special: Iterable[str]) -> list[str]:
    """Those special tokens that a cut may lie within or beside."""
    return [text for text in special if _wordy().match(text)]


class Cutter:
    """Cuts texts for one vocabulary."""

    def __init__(self, special: Iterable[str], may_cut: Callable[[str, int], bool], size: int = PIECE) -> None:
        """special: texts of special tokens; may_cut(text, at): whether the way to merge letters allows it, too."""
        self._near = reaching(special)
        self._reach = max(map(len, self._near), default=0)
        self._may_cut, self._size = may_cut, size

    def pieces(self, text: str) -> Iterator[str]:
        """The text in pieces of about `size` characters; whole where there is no border."""
        done = 0
        while len(text) - done > self._size and (at := self._border(text, done + self._size)):
            yield text[done:at]
            done = at
        yield text[done:]

    def _border(self, text: str, begin: int) -> int:
        """The first border from `begin` on; 0 if there is none."""
        found = (border.start() for border in between_words().finditer(text, begin))
        return next((at for at in found if self._may_cut(text, at) and not self._special_near(text, at)), 0)

    def _special_near(self, text: str, at: int) -> bool:
        window = text[max(0, at - self._reach) : at + 1 + self._reach]
        return any(special in window for special in self._near)
