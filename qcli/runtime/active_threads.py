"""How many threads decode: as many as make tokens quickest at the moment, found by trying.

Beside other programs fewer threads may be quicker than all, as each waits for what another has begun; and a memory that a
few threads keep busy gains nothing by more. So the number that seems quickest decodes, and now and then another does for a
while, the one that promises most by what is known and how surely. What trials lose comes out of a balance, to which all
tokens add a small share of their time; there is some at first, to search with. Results have the same bits with any number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from qcli.runtime.token_times import TokenTimes
from quant.team import Team

_WINDOW_S = 0.04  # of a measurement, at least: long beside a time slice of the system, a few milliseconds
_FIRST_WINDOW_S = 0.02
_MOST_LOST = 0.25  # of a window; a trial that has lost so much ends
_LEAST_LOST = 0.05  # that a trial counts for, whatever it gains
_SHARE = 0.02  # of the time of all tokens, that trials may lose
_AT_FIRST = 2.0  # windows that trials may lose, and the most that is saved for them
_IN_A_ROW = 1.0  # windows on the balance, with which trials follow each other


class ActiveThreads:
    """Chooses how many threads of a team decode the next token: `count`, from least to most, the latter at first."""

    def __init__(self, least: int, most: int) -> None:
        self._counts, self._most = _counts(least, most), most
        self._times = TokenTimes(self._counts)
        self._usual = self._now = len(self._counts) - 1  # of the counts: what seems quickest, and what decodes
        self._window, self._balance = _FIRST_WINDOW_S, _AT_FIRST * _WINDOW_S
        self._seconds, self._tokens = 0.0, 0  # of this window

    @property
    def count(self) -> int:
        """How many threads decode the next token."""
        return self._counts[self._now]

    @contextmanager
    def decode(self, team: Team) -> Iterator[None]:
        """Have so many threads of the team decode a token within the block, and learn from how long that takes."""
        began, team.active = perf_counter(), self.count
        try:
            yield
        finally:
            team.active = self._most
        self.note(perf_counter() - began)

    @contextmanager
    def follow(self, team: Team) -> Iterator[None]:
        """Have the number that seems quickest decode something else within the block, from which nothing is learned."""
        team.active = self._counts[self._usual]
        try:
            yield
        finally:
            team.active = self._most

    def note(self, seconds: float) -> None:
        """A token took so long, with `count` threads."""
        if len(self._counts) == 1:
            return
        self._seconds += seconds
        self._tokens += 1
        trial = self._now != self._usual
        lost = self._seconds - self._tokens * self._times.seconds(self._usual) if trial else 0.0
        if self._seconds < self._window and lost < _MOST_LOST * _WINDOW_S:
            return
        self._balance -= max(lost, _LEAST_LOST * self._seconds) if trial else 0.0
        self._learn(trial)

    def _learn(self, trial: bool) -> None:
        """A window has ended: what is known by it, and who decodes in the next."""
        seconds, tokens, tried = self._seconds, self._tokens, self._now
        self._seconds, self._tokens, self._window = 0.0, 0, _WINDOW_S
        self._times.grow_old(seconds)
        self._times.note(tried, seconds / tokens, min(1.0, seconds / _WINDOW_S), usual=not trial)
        self._usual = self._now = self._times.quickest
        window = max(_WINDOW_S, self._times.seconds(self._usual))  # of a token that takes longer: it alone
        self._balance = min(self._balance + _SHARE * seconds, _AT_FIRST * window)
        if not trial or self._balance > _IN_A_ROW * window:
            self._now = self._next(tried, window)

    def _next(self, tried: int, window: float) -> int:
        """What promises most, if it can be afforded, and was not just tried; else what seems quickest."""
        gains = self._times.expected_gains(self._usual)
        gains[self._usual] = gains[tried] = 0.0
        most = max(range(len(gains)), key=gains.__getitem__)
        token, quickest = self._times.seconds(most), self._times.seconds(self._usual)
        loss = token - quickest if token > _WINDOW_S else min(1 - quickest / token, _MOST_LOST) * _WINDOW_S
        return most if gains[most] > 0 and max(loss, _LEAST_LOST * window) <= self._balance else self._usual


def _counts(least: int, most: int) -> list[int]:
    """Numbers to choose from: of the most three quarters, half, three eighths, a quarter and so on, down to the least."""
    found, part = {least, most}, most
    while part > least:
        found |= {part, max(least, -(-3 * part // 4))}
        part //= 2
    return sorted(found)
