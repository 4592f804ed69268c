"""What a token takes by the number of threads: for each number an estimate, and how uncertain it is.

A Kalman filter over the logarithms of the times: neighbouring numbers are alike, so that a measurement of one tells of the
others, the less the farther they are, and what was measured counts less as time goes by, as what else runs may change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_SLOPE = 0.5  # tokens take n**-0.5 with n threads, as long as nothing is known
_OCTAVE = 0.5  # standard deviation of a doubling from that
_LEVEL, _CHANGED_LEVEL = 2.0, 0.3  # of all numbers together: at first, and when things have changed
_DRIFT, _DRIFT_LEVEL = 0.06, 0.1  # share of the variances that comes anew in a second; variance of the level there
_NOISE, _LEAST_NOISE = 0.1, 0.02  # standard deviation of a measurement: at first, and at least
_NEW = 0.1  # weight of a measurement in that
_ODD = 3.0  # standard deviations; twice in a row: everything has changed
_ALIKE = 0.06  # of the logarithm: numbers that differ by less are about as quick
_FASTER, _SLOWER = -0.7, 1.0  # of what was expected: more than that is believed step by step


class TokenTimes:
    """Seconds of a token for each of some numbers of threads, in rising order."""

    def __init__(self, counts: Sequence[int]) -> None:
        octaves = np.log2(np.array(counts, np.float64))
        alike = _OCTAVE**2 * np.minimum.outer(octaves, octaves)
        self._log_s = -_SLOPE * math.log(2) * octaves
        self._changed, self._drift = alike + _CHANGED_LEVEL**2, _DRIFT * (alike + _DRIFT_LEVEL)
        self._covariance = alike + _LEVEL**2
        self._noise, self._known, self._odd = _NOISE**2, False, 0

    def seconds(self, i: int) -> float:
        """What a token takes with the i-th number, as far as is known."""
        return math.exp(self._log_s[i])

    @property
    def quickest(self) -> int:
        """Which number seems quickest; of those that are about as quick, the most threads, which gain when a load goes."""
        return int(np.flatnonzero(self._log_s <= self._log_s.min() + _ALIKE)[-1])

    def grow_old(self, seconds: float) -> None:
        """So much time has passed."""
        self._covariance = self._covariance + seconds * self._drift

    def note(self, i: int, seconds: float, part: float, usual: bool) -> None:
        """A token took so long with the i-th number, a mean; part: of the time that measurements usually take, at most 1.

        usual: whether it is the number that decodes most, which tells how far measurements vary, and when things change.
        """
        if not self._known:
            self._log_s += math.log(seconds) - self._log_s[i]
            self._known, usual = True, False
        error = seconds / self.seconds(i) - 1  # the mean of it is 0 where the mean is right, which logarithms lack
        variance = self._covariance[i, i] + self._noise / part
        if usual:
            error, variance = self._compared(i, error, variance)
        error = min(max(error, _FASTER), _SLOWER)
        gain = self._covariance[:, i] / variance
        self._log_s = self._log_s + gain * error
        self._covariance = self._covariance - np.outer(gain, self._covariance[i])

    def _compared(self, i: int, error: float, variance: float) -> tuple[float, float]:
        """An error as far as it is believed, and its variance, after all is uncertain again if it is odd once more."""
        limit = _ODD * math.sqrt(variance)
        odd = 0 if abs(error) < limit else int(math.copysign(1, error))
        again, self._odd = odd != 0 and odd == self._odd, odd
        if again:
            self._odd, self._covariance = 0, self._covariance + self._changed
            return error, variance + self._changed[i, i]
        error = min(max(error, -limit), limit)
        noise = self._noise + _NEW * (error**2 - self._covariance[i, i] - self._noise)
        self._noise = max(_LEAST_NOISE**2, noise)
        return error, variance

    def expected_gains(self, usual: int) -> list[float]:
        """By the number: how much of a token's time would be saved, on average, if it turned out to be quicker than usual."""
        variances = self._covariance.diagonal() + self._covariance[usual, usual] - 2 * self._covariance[usual]
        return [
            _expected_excess(float(self._log_s[usual] - own), math.sqrt(max(float(variance), 0.0)))
            for own, variance in zip(self._log_s, variances, strict=True)
        ]


def _expected_excess(mean: float, deviation: float) -> float:
    """The mean of what is above zero of a normal distribution."""
    if deviation < 1e-9:
        return max(mean, 0.0)
    z = mean / deviation
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return deviation * density + mean * 0.5 * math.erfc(-z / math.sqrt(2))
