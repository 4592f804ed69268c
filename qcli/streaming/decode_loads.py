"""What Python decides and counts of a decoded token, or of a few: before its first layer, and after its last.

In between, kernels look experts up and have them read (`quant.kernels.expert_requests`); they share a table of TOKEN with
this.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from qcli.streaming.cache import ExpertCache
from qcli.streaming.prefetch import PrefetchPolicy
from quant.kernels.expert_loads import TOKEN, clock


class DecodeLoads:
    """Says whether a token's reads are to be guessed, adds up what it found and read, and raises what went wrong."""

    def __init__(self, cache: ExpertCache, policy: PrefetchPolicy) -> None:
        self._cache, self._policy = cache, policy

    def replays(self, compared: bool) -> Iterator[None]:
        """Yield once, for the replay of a step. Raises ModelFileError if an expert could not be read.

        compared: whether its time is one that trials compare, as that of every step of one token.
        """
        token = self._cache.token
        token[:] = 0
        token[TOKEN.prefetch // 8] = self._policy.enabled
        began, ticks = perf_counter(), clock()
        yield
        seconds = perf_counter() - began
        self._add(seconds / max(1, clock() - ticks))
        if token[TOKEN.failed // 8]:
            self._drop_failed()
        if compared:
            self._policy.record(seconds)

    def _add(self, seconds_per_tick: float) -> None:
        """Add a token's counts to the traffic."""
        traffic, counts = self._cache.traffic, self._cache.token.tolist()
        traffic.hits += counts[TOKEN.hits // 8]
        traffic.misses += counts[TOKEN.misses // 8]
        traffic.bytes_read += counts[TOKEN.bytes_read // 8]
        traffic.wait_s += counts[TOKEN.waited // 8] * seconds_per_tick

    def _drop_failed(self) -> None:
        errors = [layer.drop_failed() for layer in self._cache.layers.values()]
        raise next(error for error in errors if error)
