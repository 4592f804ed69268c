"""Which experts of a layer stay in memory: those routed to most, of late.

Each choice of an expert adds one to its heat, and heat halves every `HALF_LIFE` choices. A slot is taken from the coldest
expert. Of the experts that the embedded model asks for while it reads fables, half of them having a slot, that finds 65 %
there; taking the slot of the one unused for longest, 62 %; knowing the future, 81 % (benchmarks/cache_policies.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HALF_LIFE = 2560  # choices of one layer: 256 tokens with 10 experts each
_MOST = 1e100  # of a weight, before all are scaled down
_FREE, _CLOSED = -1, -2  # in place of an expert


class Slots:
    """The slots of one layer; an expert has one or none."""

    def __init__(self, experts: int, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"{slots} slots")
        self.slot_of: NDArray[np.int64] = np.full(experts, -1, np.int64)
        self.expert_in: NDArray[np.int64] = np.full(min(slots, experts), _FREE, np.int64)
        self._heat = np.zeros(experts, np.float64)
        self._weight = 1.0

    @property
    def heat(self) -> NDArray[np.float32]:
        """How often each expert was chosen of late, float32 [experts]."""
        return (self._heat / self._weight).astype(np.float32)

    @heat.setter
    def heat(self, values: NDArray[np.float32]) -> None:
        self._heat[:] = values
        self._weight = 1.0

    def choose(self, experts: NDArray[np.int64], times: NDArray[np.int64] | int = 1) -> None:
        """Warm up experts, each as often as it was chosen."""
        self._heat[experts] += self._weight * times
        choices = len(experts) * times if isinstance(times, int) else float(times.sum())
        self._weight *= 2.0 ** (choices / HALF_LIFE)
        if self._weight > _MOST:
            self._heat /= self._weight
            self._weight = 1.0

    def take(self, expert: int, keep: Sequence[int]) -> int:
        """Give an expert the slot of the coldest one that is not in `keep`, or a free one; who had it, or -1.

        One that has a slot keeps it. LookupError if all are kept.
        """
        if self.slot_of[expert] >= 0:
            return -1
        slot, before = self._empty(keep)
        self.expert_in[slot] = expert
        self.slot_of[expert] = slot
        return before

    def close(self, keep: Sequence[int]) -> tuple[int, int]:
        """Have one less: a slot that is free, or the coldest expert's, and who had it, or -1; LookupError as take."""
        slot, before = self._empty(keep)
        self.expert_in[slot] = _CLOSED
        return slot, before

    def reopen(self) -> None:
        """Have one more, of those that were closed."""
        self.expert_in[np.flatnonzero(self.expert_in == _CLOSED)[0]] = _FREE

    def free(self, expert: int) -> None:
        """Take an expert's slot away."""
        self.expert_in[self.slot_of[expert]] = _FREE
        self.slot_of[expert] = -1

    @property
    def count(self) -> int:
        """Slots that are not closed."""
        return int(np.count_nonzero(self.expert_in != _CLOSED))

    @property
    def used(self) -> int:
        """Slots that have an expert."""
        return int(np.count_nonzero(self.expert_in >= 0))

    def hottest(self, count: int) -> NDArray[np.int64]:
        """The warm experts, hottest first, at most `count`."""
        order = np.argsort(-self._heat, kind="stable")[:count]
        return order[self._heat[order] > 0]

    def _empty(self, keep: Sequence[int]) -> tuple[int, int]:
        free = np.flatnonzero(self.expert_in == _FREE)
        slot = int(free[0]) if len(free) else self._coldest(keep)
        before = int(self.expert_in[slot])
        if before >= 0:
            self.slot_of[before] = -1
        return slot, before

    def _coldest(self, keep: Sequence[int]) -> int:
        heat = self._heat[self.expert_in]
        heat[self.expert_in < 0] = np.inf
        kept = self.slot_of[list(keep)]
        heat[kept[kept >= 0]] = np.inf
        heats: list[float] = heat.tolist()  # argmin would let the interpreter's lock go: 50 us to have it again
        least = min(heats)
        if least == np.inf:
            raise LookupError("every slot is kept")
        return heats.index(least)
