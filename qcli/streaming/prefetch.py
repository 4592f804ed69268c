"""Guessing the next layer's experts, so that the disk has something to do while this layer is computed.

The next layer's router is asked with this layer's input: layers add little to it, so it often chooses alike. Whether that
pays depends on the model, the disk and the memory, so it is tried: a few tokens with guesses, a few without, and then many
the quicker way.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter

import numpy as np

from quant.plan import Activation
from quant.weights import Matrix

_TRIAL = 16  # tokens of one way
_ROUND = 512  # tokens between the beginnings of two trials


class Pays:
    """Which of two ways takes less time a token: tried in turn, then kept for a while."""

    def __init__(self) -> None:
        self._seconds: tuple[list[float], list[float]] = [], []  # without, with
        self._token = 0

    @property
    def on(self) -> bool:
        """Whether the next token goes the second way."""
        if self._token < 2 * _TRIAL:
            return self._token >= _TRIAL
        return median(self._seconds[1]) < median(self._seconds[0])

    def took(self, seconds: float) -> None:
        """Note what the token took."""
        if self._token < 2 * _TRIAL:
            self._seconds[self.on].append(seconds)
        self._token += 1
        if self._token == _ROUND:
            self._token = 0
            self._seconds = [], []


class Lookahead:
    """Routers in the order of their layers."""

    def __init__(self, pays: Pays | None = None) -> None:
        self._routers: dict[str, tuple[Matrix, Activation]] = {}
        self._pays = pays or Pays()
        self._began = 0.0
        self.on = False  # whether guessing pays for this token

    def note(self, layer: str, router: Matrix, h: Activation) -> None:
        """The router of the next layer to be traced, and its input [1, n]."""
        h.read(router.format.activation)
        self._routers[layer] = router, h

    def begin(self, layer: str) -> None:
        """A token has come to a layer."""
        if layer == next(iter(self._routers)):
            self._began, self.on = perf_counter(), self._pays.on

    def end(self, layer: str) -> None:
        """All experts of a layer are there."""
        if layer == next(reversed(self._routers)):
            self._pays.took(perf_counter() - self._began)

    def guess(self, layer: str, following: str, count: int) -> list[int]:
        """The experts that the following layer would choose from this one's input."""
        router, h = self._routers[following][0], self._routers[layer][1]
        logits = np.empty(router.rows, np.float32)
        x = h.read(router.format.activation).ctypes.data
        router.format.dot_rows(router.address, router.rows, router.columns, x, logits.ctypes.data, 1.0, 0)
        if router.bias is not None:
            logits += router.bias
        return [int(expert) for expert in np.argpartition(-logits, count - 1)[:count]]
