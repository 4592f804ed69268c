"""What is believed of guesses: how long something takes, and how often guesses come true."""

from __future__ import annotations

_NEW = 0.15  # weight of a new measurement, once there are some
_ODD = 1.6  # times as long, or as short, as was believed: not believed before it comes again
_SOME = 3  # measurements, before which nothing is odd
_PRIOR = 4.0  # guesses that what is taken for granted counts for
_MEMORY = 0.95  # weight of older guesses at each new one


class Time:
    """How long something takes, from measurements of which one now and then is held up by something else."""

    def __init__(self) -> None:
        self.value, self._count, self._odd = 0.0, 0, 0.0

    @property
    def known(self) -> bool:
        """Whether it was measured."""
        return self._count > 0

    def note(self, measured: float) -> float | None:
        """Note a measurement; what is believed then, None if another one has to tell whether this one is to be believed."""
        ratio = measured / self.value if self._count >= _SOME and self.value else 1.0
        if not 1 / _ODD < ratio < _ODD:
            if self._odd and 1 / _ODD < measured / self._odd < _ODD:
                self.value, self._count, self._odd = (measured + self._odd) / 2, _SOME - 1, 0.0
                return self.value
            self._odd = measured
            return None
        self._odd = 0.0
        self._count += 1
        self.value += (measured - self.value) * max(_NEW, 1 / self._count)
        return self.value

    def fade(self, expected: float, share: float) -> None:
        """A share of what was measured is forgotten, for what was expected."""
        self.value += (expected - self.value) * share


class Chances:
    """How often guesses of a kind come true: of one after another that did, the share that does, too."""

    def __init__(self, expected: float) -> None:
        self._expected, self._right, self._tried = expected, _PRIOR * expected, _PRIOR

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self._right / self._tried

    def note(self, right: bool) -> None:
        """A guess came true, or did not."""
        self._right, self._tried = _MEMORY * self._right + right, _MEMORY * self._tried + 1

    def fade(self, share: float) -> None:
        """A share of what was seen is forgotten, for what was expected."""
        self._right += (_PRIOR * self._expected - self._right) * share
        self._tried += (_PRIOR - self._tried) * share
