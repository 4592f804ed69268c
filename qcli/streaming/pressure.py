"""Decides how many slots a layer may use while other programs take and return memory.

`ExpertLoader` asks before each layer of a token or a chunk, at most four times a second.
"""

from __future__ import annotations

from time import perf_counter

from qcli.errors import QcliError
from qcli.host.memory import available_memory

FLOOR = 256 << 20  # bytes to leave free; where no limit was given, `budget` begins with twice as many
_CRITICAL = FLOOR // 4  # bytes; with fewer free, the system may end any program at any moment
_MARGIN = FLOOR // 2  # bytes beyond the floor, so that slots do not come and go
_INTERVAL_S = 0.25  # between two checks, which take 0.5 ms where there are cgroups
_CALM_S = 10.0  # before slots return


class MemoryPressure:
    """Compares free memory with what slots take."""

    def __init__(self, max_slots: int, min_slots: int, slot_bytes: int) -> None:
        """max_slots, min_slots: in each layer, as allocated and for one token; slot_bytes: of one slot in every layer."""
        self.max_slots, self._min_slots, self._slot_bytes = max_slots, min_slots, max(1, slot_bytes)
        self._next_check = 0.0  # perf_counter()
        self._calm_since = 0.0

    @property
    def due(self) -> bool:
        """Whether the interval since the last check is over."""
        return perf_counter() >= self._next_check

    def slots_for(self, slots: int, used: int) -> int:
        """Check free memory; returns the number of slots to have in each layer instead of `slots`, of which `used` are full.

        Raises QcliError if memory is nearly exhausted and no more slots can be returned.
        """
        now = perf_counter()
        self._next_check = now + _INTERVAL_S
        free = available_memory()
        if free < FLOOR:
            self._calm_since = now
            return self._fewer(slots, used, free)
        more = (free - FLOOR - _MARGIN) // self._slot_bytes - (slots - used)  # free slots will take memory, too
        if slots >= self.max_slots or more < 1:
            self._calm_since = now
        if now - self._calm_since < _CALM_S:
            return slots
        self._calm_since = now
        return min(self.max_slots, slots + min(more, -(-self.max_slots // 8)))

    def _fewer(self, slots: int, used: int, free: int) -> int:
        """As many less that half of the margin is free again, but at least `min_slots`."""
        returned = -(-(FLOOR + _MARGIN // 2 - free) // self._slot_bytes)
        fewer = max(self._min_slots, min(slots, used) - returned)
        if free < _CRITICAL and fewer >= used:
            raise QcliError(
                f"memory is short: {free / 1e6:,.0f} MB are free, and qcli cannot use less",
                ("close other programs", "start again with a smaller --ram", "start again with a smaller --ctx"),
            )
        return min(slots, fewer)
