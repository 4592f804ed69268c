"""How many tokens to guess: as many as pay, by what steps have taken and by how often guesses came true."""

from __future__ import annotations

from collections.abc import Hashable

_GAIN = 1.03  # what guessing must promise, as a ratio of speeds
# Of a step's time, for each further token, as long as nothing is known; where most of it is reading experts from the disk,
# of which each token needs others, only guesses that are nearly sure promise enough to be tried.
_SLOPE, _SLOPE_STREAMED = 0.35, 0.8
_NEW = 0.15  # weight of a new measurement
_FIRST, _COMPARED = 3, 24  # steps of one token at first; steps of several, after which one of one is measured again
_PRIOR = 4.0  # guesses that what is taken for granted counts for
_MEMORY = 0.97  # weight of older guesses at each new one
_REGRET = 0.995  # likewise, at each chance that was not taken: so what did not pay is tried again, seldom


class Chances:
    """How often guesses of a kind come true: of one after another that did, the share that does, too."""

    def __init__(self, expected: float) -> None:
        self._expected, self._right, self._tried = expected, 0.0, 0.0

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return (self._right + _PRIOR * self._expected) / (self._tried + _PRIOR)

    def note(self, right: bool) -> None:
        """A guess came true, or did not."""
        self._right, self._tried = _MEMORY * self._right + right, _MEMORY * self._tried + 1

    def fade(self) -> None:
        """A chance was not taken."""
        self._right, self._tried = _REGRET * self._right, _REGRET * self._tried


class Controller:
    """Chooses widths of steps: tokens that a step takes, one of them known."""

    def __init__(self, widest: int, *, streamed: bool = False) -> None:
        """widest: most tokens of a step; streamed: whether experts are read from the disk."""
        self._widest, self._first_slope = widest, _SLOPE_STREAMED if streamed else _SLOPE
        self._seconds = 0.0  # of a step of one token
        self._due = _FIRST  # steps of one token that come before others, so that there is something to compare with
        self._wide = 0  # steps of several since the last of one
        self._guess_s, self._ready = 0.0, False  # of a guess that the model makes itself
        self._costs: dict[int, float] = {}  # of a step of so many tokens, as a multiple of that
        self._chances: dict[Hashable, Chances] = {}

    def chances(self, kind: Hashable, expected: float) -> Chances:
        """Those of a kind of guesses; expected: what share comes true, as long as nothing is known."""
        return self._chances.setdefault(kind, Chances(expected))

    def took(self, width: int, seconds: float) -> None:
        """A step of so many tokens took so long."""
        if width == 1:
            self._due, self._wide = max(0, self._due - 1), 0
            self._seconds += (seconds - self._seconds) * (_NEW if self._seconds else 1.0)
        elif self._seconds:
            self._wide += 1
            if self._wide == _COMPARED:
                self._due = 1
            cost = min(seconds / self._seconds, width)  # more only where something else came between
            before = self._costs.get(width, self.cost(width))
            self._costs[width] = before + (cost - before) * _NEW

    def cost(self, width: int) -> float:
        """Of a step of so many tokens, as a multiple of a step of one; between those that are known, a mean."""
        known = {1: 1.0, **self._costs}
        if width in known:
            return known[width]
        below = max(other for other in known if other < width)
        above = min((other for other in known if other > width), default=0)
        slope = (known[above] - known[below]) / (above - below) if above else self._slope(below, known[below])
        return known[below] + slope * (width - below)

    def guessed(self, count: int, seconds: float) -> None:
        """The model took so long to make so many guesses itself; the first time, with all that had to be made ready."""
        if not self._ready:
            self._ready = True
            return
        self._guess_s += (seconds / count - self._guess_s) * (_NEW if self._guess_s else 1.0)

    @property
    def cost_of_guess(self) -> float:
        """Of one that the model makes itself, in steps of one token."""
        return self._guess_s / self._seconds if self._seconds else 0.0

    def pass_by(self, chances: Chances) -> None:
        """Nothing was guessed, for it would not have paid: both are forgotten, slowly, that say so."""
        chances.fade()
        self._guess_s *= _REGRET
        for width, cost in self._costs.items():
            self._costs[width] = cost + (1 + self._first_slope * (width - 1) - cost) * (1 - _REGRET)

    def width(self, chances: Chances, most: int, cost_of_guess: float = 0.0) -> tuple[int, float]:
        """The best width up to `most`, 1 where none promises a gain, and that gain; cost_of_guess: in steps of one token."""
        best, gain, share = 1, _GAIN, chances.share
        if self._due:
            return best, gain
        expected = tokens = 1.0
        for width in range(2, min(most, self._widest) + 1):
            expected *= share
            tokens += expected
            promised = tokens / (self.cost(width) + cost_of_guess * (width - 1))
            if promised > gain:
                best, gain = width, promised
        return best, gain

    def _slope(self, width: int, cost: float) -> float:
        return self._first_slope if width == 1 else (cost - 1) / (width - 1)
