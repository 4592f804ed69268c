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
_GAIN = 0.95  # of the time, or less, makes another number better
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 6.0  # between trials: doubled whenever one has failed


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
        if self._least < self._most:
            self.note(perf_counter() - began)

    def note(self, seconds: float) -> None:
        """A token took so long, with `count` threads."""
        self._seconds += seconds
        self._tokens += 1
        if self._seconds >= _WINDOW_S and self._tokens >= _WINDOW_TOKENS:
            self._trials.send(self._seconds / self._tokens)
            self._seconds, self._tokens = 0.0, 0

    def _try_others(self) -> Generator[None, float, None]:
        """Is sent the seconds of a token, a mean of some in a row with the same count, and sets the next count."""
        upwards, pause = True, 0.0
        while True:
            left, before = pause, (yield)
            while (left := left - self._seconds) > 0:
                before = yield
            usual, upwards = self.count, not upwards
            self.count = self._another(usual, upwards)
            if self.count == usual:
                continue
            other, tried = self.count, (yield)
            self.count = usual
            if tried < _GAIN * before and tried < _GAIN * (yield):
                self.count, upwards, pause = other, not upwards, 0.0  # and on in this direction, at once
            else:
                pause = min(max(2 * pause, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)

    def _another(self, count: int, upwards: bool) -> int:
        step = max(1, count // 4)
        return min(count + step, self._most) if upwards else max(count - step, self._least)
