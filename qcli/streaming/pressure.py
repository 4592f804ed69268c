"""Other programs may come to need memory that was free when experts got their slots: some slots go back, and return later."""

from __future__ import annotations

from time import perf_counter

from qcli.errors import QcliError
from qcli.host.memory import available

FLOOR = 256 << 20  # bytes to be left free; where no limit was given, `budget` begins with twice as many
_LEAST = FLOOR // 4  # with fewer, the system may end any program at any moment
_SPARE = FLOOR // 2  # beyond the floor, so that slots do not come and go
_EVERY_S = 0.25  # between two looks, which take 0.5 ms where there are cgroups
_CALM_S = 10.0  # before slots return


class Pressure:
    """How many slots each layer should have."""

    def __init__(self, most: int, least: int, n_bytes: int) -> None:
        """most, least: slots in each layer, and those that a token needs; n_bytes: of one slot in every layer."""
        self.most, self._least, self._bytes = most, least, max(1, n_bytes)
        self._next = self._calm = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time for another look."""
        return perf_counter() >= self._next

    def slots_for(self, slots: int, used: int) -> int:
        """Look: the number to have instead of `slots`, of which `used` hold an expert.

        Raises QcliError where memory is about to end, and none can be given back.
        """
        now = perf_counter()
        self._next = now + _EVERY_S
        free = available()
        if free < FLOOR:
            self._calm = now
            return self._fewer(slots, used, free)
        more = (free - FLOOR - _SPARE) // self._bytes - (slots - used)  # those that are empty will take memory, too
        if slots >= self.most or more < 1:
            self._calm = now
        if now - self._calm < _CALM_S:
            return slots
        self._calm = now
        return min(self.most, slots + min(more, -(-self.most // 8)))

    def _fewer(self, slots: int, used: int, free: int) -> int:
        back = -(-(FLOOR + _SPARE // 2 - free) // self._bytes)
        fewer = max(self._least, min(slots, used) - back)
        if free < _LEAST and fewer >= used:
            raise QcliError(
                f"memory is short: {free / 1e6:.0f} MB are left, and experts have given back all that they can",
                "end other programs, or start again with a smaller --ram or --ctx",
            )
        return min(slots, fewer)
