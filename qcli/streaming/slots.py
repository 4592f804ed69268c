"""Decides which experts of a layer stay in memory: those chosen most often of late.

Each choice of an expert adds one to its usage, and usage halves every `HALF_LIFE` choices. The expert of the least usage is
evicted. Of the experts that the embedded model chooses while it reads fables, half of them having a slot, that finds 65 % in
memory; evicting the least recently used, 62 %; knowing the future, 81 % (benchmarks/cache_policies.py).

A `CachedLayer` has one `Slots` and keeps the memory; here are only numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HALF_LIFE = 2560  # choices of one layer: 256 tokens with 10 experts each
_MAX_WEIGHT = 1e100  # of one choice, before everything is scaled down
_FREE, _CLOSED = -1, -2  # in place of an expert


class Slots:
    """Which expert is in which slot of one layer; an expert has one slot or none."""

    def __init__(self, experts: int, slots: int) -> None:
        """All slots are free. Raises ValueError if there are none."""
        if slots < 1:
            raise ValueError(f"{slots} slots")
        self.slot_of: NDArray[np.int64] = np.full(experts, -1, np.int64)  # [experts], -1: none
        self.expert_in: NDArray[np.int64] = np.full(min(slots, experts), _FREE, np.int64)  # [slots]
        self._usage = np.zeros(experts, np.float64)  # in units of `_weight`, so that decay need not touch every expert
        self._weight = 1.0  # of a choice made now

    @property
    def available(self) -> int:
        """Slots that are not closed."""
        return int(np.count_nonzero(self.expert_in != _CLOSED))

    @property
    def used(self) -> int:
        """Slots that have an expert."""
        return int(np.count_nonzero(self.expert_in >= 0))

    @property
    def usage(self) -> NDArray[np.float32]:
        """How often each expert was chosen of late: counts with decay, float32 [experts]."""
        return (self._usage / self._weight).astype(np.float32)

    @usage.setter
    def usage(self, values: NDArray[np.float32]) -> None:
        self._usage[:] = values
        self._weight = 1.0

    def count_usage(self, experts: NDArray[np.int64], times: NDArray[np.int64] | int = 1) -> None:
        """Note that experts [n] were chosen, each so many times."""
        self._usage[experts] += self._weight * times
        choices = len(experts) * times if isinstance(times, int) else float(times.sum())
        self._weight *= 2.0 ** (choices / HALF_LIFE)
        if self._weight > _MAX_WEIGHT:
            self._usage /= self._weight
            self._weight = 1.0

    def most_used(self, count: int) -> NDArray[np.int64]:
        """Experts of any usage, the most used first, at most `count`."""
        order = np.argsort(-self._usage, kind="stable")[:count]
        return order[self._usage[order] > 0]

    def assign(self, expert: int, pinned: Sequence[int]) -> int:
        """Give an expert a free slot, or that of the least used expert not in `pinned`; returns the one evicted, or -1.

        An expert that has a slot keeps it. Raises LookupError if all slots belong to pinned experts.
        """
        if self.slot_of[expert] >= 0:
            return -1
        slot, evicted = self._vacate(pinned)
        self.expert_in[slot] = expert
        self.slot_of[expert] = slot
        return evicted

    def release(self, expert: int) -> None:
        """Make an expert's slot free."""
        self.expert_in[self.slot_of[expert]] = _FREE
        self.slot_of[expert] = -1

    def close(self, pinned: Sequence[int]) -> tuple[int, int]:
        """Use one slot less: returns the slot and the expert evicted from it, or -1. Raises LookupError as `assign`."""
        slot, evicted = self._vacate(pinned)
        self.expert_in[slot] = _CLOSED
        return slot, evicted

    def reopen(self) -> None:
        """Use one of the closed slots again."""
        self.expert_in[np.flatnonzero(self.expert_in == _CLOSED)[0]] = _FREE

    def _vacate(self, pinned: Sequence[int]) -> tuple[int, int]:
        free = np.flatnonzero(self.expert_in == _FREE)
        slot = int(free[0]) if len(free) else self._least_used(pinned)
        evicted = int(self.expert_in[slot])
        if evicted >= 0:
            self.slot_of[evicted] = -1
        return slot, evicted

    def _least_used(self, pinned: Sequence[int]) -> int:
        """The slot of the least used expert that is not pinned."""
        usage = self._usage[self.expert_in]
        usage[self.expert_in < 0] = np.inf
        kept = self.slot_of[list(pinned)]
        usage[kept[kept >= 0]] = np.inf
        values: list[float] = usage.tolist()  # argmin would release the interpreter's lock: 50 us to have it again
        least = min(values)
        if least == np.inf:
            raise LookupError("every slot belongs to a pinned expert")
        return values.index(least)
