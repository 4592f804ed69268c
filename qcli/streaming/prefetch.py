"""Whether the next layer's experts are guessed and read ahead, so that the disk is busy while this layer is computed.

Kernels guess (`quant.kernels.expert_requests`): the next layer's router is applied to this layer's input, as layers add little
to it, so it often chooses the same experts. Whether that saves time depends on the model, the disk and the memory, so
`PrefetchTrial` measures it: some tokens without prefetching, some with it, and then many the quicker way.
"""

from __future__ import annotations

from statistics import median
from typing import Protocol

_TRIAL = 16  # tokens with, and as many without
_PERIOD = 512  # tokens from the beginning of one trial to that of the next


class PrefetchPolicy(Protocol):
    """Decides for each decoded token whether to prefetch."""

    @property
    def enabled(self) -> bool:
        """Whether to prefetch during the next token."""

    def record(self, seconds: float) -> None:
        """Note how long the token took."""


class PrefetchTrial:
    """Prefetches if tokens are quicker with it: measured in turn, then kept for the rest of a period."""

    def __init__(self) -> None:
        self._seconds: tuple[list[float], list[float]] = [], []  # of tokens without, with
        self._token = 0  # of this period

    @property
    def enabled(self) -> bool:
        """See PrefetchPolicy."""
        if self._token < 2 * _TRIAL:
            return self._token >= _TRIAL
        return median(self._seconds[1]) < median(self._seconds[0])

    def record(self, seconds: float) -> None:
        """See PrefetchPolicy."""
        if self._token < 2 * _TRIAL:
            self._seconds[self.enabled].append(seconds)
        self._token += 1
        if self._token == _PERIOD:
            self._token = 0
            self._seconds = [], []
