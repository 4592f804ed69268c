"""Predicts the next layer's experts, so that the disk is busy while this layer is computed.

The next layer's router is applied to this layer's input: layers add little to it, so it often chooses the same experts.
Whether that saves time depends on the model, the disk and the memory, so `PrefetchTrial` measures it: some tokens without
prefetching, some with it, and then many the quicker way. `DecodeLoads` calls all of this.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Protocol

import numpy as np

from quant.plan import Activation
from quant.weights import Matrix

_TRIAL = 16  # tokens with, and as many without
_PERIOD = 512  # tokens from the beginning of one trial to that of the next


class PrefetchPolicy(Protocol):
    """Decides for each decoded token whether to prefetch."""

    @property
    def enabled(self) -> bool:
        """Whether to prefetch during the next token."""

    def record(self, seconds: float) -> None:
        """Note how long the token took from its first layer of experts to its last."""


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


class Prefetcher:
    """Routers in the order of their layers, and the clock of the token that passes through them."""

    def __init__(self, policy: PrefetchPolicy | None = None) -> None:
        self._routers: dict[str, tuple[Matrix, Activation]] = {}  # and their inputs, by the layer's name
        self._policy = policy or PrefetchTrial()
        self._began = 0.0  # perf_counter()
        self.enabled = False  # for this token

    def add_router(self, layer: str, router: Matrix, h: Activation) -> None:
        """Add the next layer's router and its input [1, n]."""
        h.read(router.format.activation)
        self._routers[layer] = router, h

    def begin_layer(self, layer: str) -> None:
        """A token's experts of this layer are chosen; asks the policy in the first layer."""
        if layer == next(iter(self._routers)):
            self._began, self.enabled = perf_counter(), self._policy.enabled

    def end_layer(self, layer: str) -> None:
        """All experts of this layer are in memory; tells the policy in the last layer."""
        if layer == next(reversed(self._routers)):
            self._policy.record(perf_counter() - self._began)

    def predict(self, layer: str, following: str, count: int) -> list[int]:
        """The `count` experts that the router of the following layer rates highest, given this layer's input."""
        router, h = self._routers[following][0], self._routers[layer][1]
        logits = np.empty(router.rows, np.float32)
        x = h.read(router.format.activation).ctypes.data
        router.format.dot_rows(router.address, router.rows, router.columns, x, logits.ctypes.data, 1.0, 0)
        if router.bias is not None:
            logits += router.bias
        return [int(expert) for expert in np.argpartition(-logits, count - 1)[:count]]
