"""Prompt lookup: where a text repeats something of itself, what followed there is likely to follow here, too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

_SHORTEST = 3  # tokens that must be alike
_LONGEST = 32  # that are compared
_PLACES = 8  # the last ones where those tokens stand, which are looked at


class Guess(NamedTuple):
    """Tokens that may follow, and how many tokens before them are alike where they stand in the text."""

    ids: list[int]
    alike: int


class PromptLookup:
    """Finds what a text goes on with where the same tokens stood before."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._places: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)  # by the tokens before them
        self._here: list[int] = []  # those behind the last tokens, without the end of the text: that comes with more

    def extend(self, ids: Sequence[int]) -> None:
        """The text goes on with these."""
        own = self._ids
        for token in ids:
            self._here.append(len(own))
            own.append(token)
            self._here = self._places[tuple(own[-_SHORTEST:])] if len(own) >= _SHORTEST else []

    def guess(self, count: int) -> Guess | None:
        """Up to `count` tokens that followed the longest end of the text that it had before; None where there is none."""
        if not self._here or count < 1:
            return None
        alike, place = max((self._alike(place), place) for place in self._here[-_PLACES:])
        return Guess(self._ids[place : place + count], alike)

    def _alike(self, place: int) -> int:
        """How many tokens before a place are those at the end of the text."""
        own, size = self._ids, _SHORTEST
        most = min(_LONGEST, place)
        while size < most and own[place - size - 1] == own[-size - 1]:
            size += 1
        return size
