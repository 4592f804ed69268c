"""How many threads decode: as many as make tokens quickest at the moment, found by trying.

Beside other programs fewer threads may be quicker than all, as each waits for what another has begun; and a memory that a
few threads keep busy gains nothing by more. So now and then some tokens are decoded with more threads or with fewer, the
next ones as before, and the other number stays if it was quicker than both. Results have the same bits with any number.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from time import perf_counter

from quant.team import Team

_WINDOW_S, _WINDOW_TOKENS = 0.04, 3  # of a comparison: long beside a time slice of the system, a few milliseconds
_GAIN = 0.96  # of the time, or less, makes another number better
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 6.0  # between trials: doubled when all have failed
_RARELY = 40  # pauses may be as long as so many trials: these cost little where a token takes a second, too


class ActiveThreads:
    """Chooses how many threads of a team decode the next token: `count`, from least to most, the latter at first."""

    def __init__(self, least: int, most: int) -> None:
        self.count, self._least, self._most = most, least, most
        self._seconds, self._tokens = 0.0, 0  # of the tokens that are compared with others next
        self._trials = self._try_others()
        next(self._trials)

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
        """Have so many threads decode something else within the block, from which nothing is learned."""
        team.active = self.count
        try:
            yield
        finally:
            team.active = self._most

    def note(self, seconds: float) -> None:
        """A token took so long, with `count` threads."""
        if self._least == self._most:
            return
        self._seconds += seconds
        self._tokens += 1
        if self._seconds >= _WINDOW_S and self._tokens >= _WINDOW_TOKENS:
            self._trials.send(self._seconds / self._tokens)
            self._seconds, self._tokens = 0.0, 0

    def _try_others(self) -> Generator[None, float, None]:
        """Is sent the seconds of a token, a mean of some in a row with the same count, and sets the next count."""
        pause, others = 0.0, self._others()
        while True:
            left, before = pause, (yield)
            while (left := left - self._seconds) > 0:
                before = yield
            usual, self.count = self.count, others.pop(0)
            other, tried = self.count, (yield)
            self.count = usual
            if tried < _GAIN * before and tried < _GAIN * (yield):
                self.count, pause = other, 0.0
                others = sorted(self._others(), key=lambda count: (count < other) != (other < usual))  # on, at once
            elif not others:
                longest = max(_LONGEST_PAUSE_S, _RARELY * self._seconds)
                others, pause = self._others(), min(max(2 * pause, _FIRST_PAUSE_S), longest)

    def _others(self) -> list[int]:
        """Numbers to try: half as many, twice as many, then those nearby."""
        some = -(-self.count // 4)
        far, near = (self.count // 2, 2 * self.count), (self.count - some, self.count + some)
        within = (max(self._least, min(count, self._most)) for count in (*far, *near, self.count - 1, self.count + 1))
        return [count for count in dict.fromkeys(within) if count != self.count]
