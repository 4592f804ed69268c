"""Decides which experts of a layer stay in memory: those chosen most often of late.

Each choice of an expert adds one to its usage, and usage halves every `HALF_LIFE` choices. The expert of the least usage is
evicted. Of the experts that the embedded model chooses while it reads fables, half of them having a slot, that finds 65 % in
memory; evicting the least recently used, 62 %; knowing the future, 81 % (benchmarks/cache_policies.py).

A `CachedLayer` has one `Slots` and keeps the memory; here are only numbers, in arrays that kernels change, too: experts of
decoded tokens get their slots there (`quant.kernels.expert_slots`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quant.kernels.expert_slots import FREE, SLOTS, count_usage, find_slot

HALF_LIFE = 2560  # choices of one layer: 256 tokens with 10 experts each
_MOST_HALVINGS = 60.0  # at once; what is left of older choices is nothing
_CLOSED = -2  # in place of an expert


def growth(choices: float) -> float:
    """What a choice counts after so many others, times what it counted before."""
    return float(2.0 ** min(choices / HALF_LIFE, _MOST_HALVINGS))


class Slots:
    """Which expert is in which slot of one layer; an expert has one slot or none."""

    def __init__(self, experts: int, slots: int) -> None:
        """All slots are free. Raises ValueError if there are none."""
        if slots < 1:
            raise ValueError(f"{slots} slots")
        self.slot_of: NDArray[np.int64] = np.full(experts, -1, np.int64)  # [experts], -1: none
        self.expert_in: NDArray[np.int64] = np.full(min(slots, experts), FREE, np.int64)  # [slots]
        self.loading: NDArray[np.uint8] = np.zeros(experts, np.uint8)  # [experts], 1: is being read into its slot
        self._pinned: NDArray[np.uint8] = np.zeros(experts, np.uint8)
        self._usage: NDArray[np.float32] = np.zeros(experts, np.float32)  # in units of the weight of a choice made now
        fields = {
            "experts": experts,
            "slots": len(self.expert_in),
            "slot_of": self.slot_of.ctypes.data,
            "expert_in": self.expert_in.ctypes.data,
            "usage": self._usage.ctypes.data,
            "weight": 0,
            "pinned": self._pinned.ctypes.data,
            "loading": self.loading.ctypes.data,
        }
        self.table: NDArray[np.int64] = np.array(SLOTS.in_order(fields), np.int64)
        self._weight = self.table[SLOTS.weight // 8 :].view(np.float32)[:1]
        self._weight[0] = 1.0

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
        usage: NDArray[np.float32] = self._usage / self._weight[0]
        return usage

    @usage.setter
    def usage(self, values: NDArray[np.float32]) -> None:
        self._usage[:] = values
        self._weight[0] = 1.0

    def count_usage(self, experts: NDArray[np.int64], times: NDArray[np.int64] | None = None) -> None:
        """Note that experts [n] were chosen, each so many times, by default once."""
        experts = np.ascontiguousarray(experts, np.int64)
        choices = float(len(experts) if times is None else times.sum())
        counted = 0 if times is None else (times := np.ascontiguousarray(times, np.int64)).ctypes.data
        count_usage(self.table.ctypes.data, experts.ctypes.data, counted, len(experts), growth(choices))

    def most_used(self, count: int) -> NDArray[np.int64]:
        """Experts of any usage, the most used first, at most `count`."""
        order = np.argsort(-self._usage, kind="stable")[:count]
        return order[self._usage[order] > 0]

    def pin(self, experts: Sequence[int], pinned: bool = True) -> None:
        """Let experts keep their slots, or not any more."""
        self._pinned[np.asarray(experts, np.int64)] = pinned

    def assign(self, expert: int, pinned: Sequence[int]) -> int:
        """Give an expert a free slot, or that of the least used expert not in `pinned`; returns the one evicted, or -1.

        An expert that has a slot keeps it. Raises LookupError if all slots belong to pinned experts, or are read into.
        """
        if self.slot_of[expert] >= 0:
            return -1
        slot, evicted = self._vacate(pinned)
        self.expert_in[slot] = expert
        self.slot_of[expert] = slot
        return evicted

    def release(self, expert: int) -> None:
        """Make an expert's slot free."""
        self.expert_in[self.slot_of[expert]] = FREE
        self.slot_of[expert] = -1

    def close(self) -> tuple[int, int]:
        """Use one slot less: returns the slot and the expert evicted from it, or -1. Raises LookupError as `assign`."""
        slot, evicted = self._vacate(())
        self.expert_in[slot] = _CLOSED
        return slot, evicted

    def reopen(self) -> None:
        """Use one of the closed slots again."""
        self.expert_in[np.flatnonzero(self.expert_in == _CLOSED)[0]] = FREE

    def _vacate(self, pinned: Sequence[int]) -> tuple[int, int]:
        self.pin(pinned)
        slot = find_slot(self.table.ctypes.data)
        self.pin(pinned, False)
        if slot < 0:
            raise LookupError("every slot belongs to a pinned expert")
        evicted = int(self.expert_in[slot])
        if evicted >= 0:
            self.slot_of[evicted] = -1
        return slot, evicted
