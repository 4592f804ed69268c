"""What changes while a model runs: caches that grow with the context, and recurrent states that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcli.errors import UsageError
from quant.kernels import kv_cache
from quant.plan import aligned


@dataclass(frozen=True)
class Snapshot:
    """A copy of a state at a position; a recurrent layer cannot be rewound, only put back."""

    position: int
    recurrent: list[NDArray[np.float32]]
    caches: list[NDArray[Any]]


class State:
    """Memory for `ctx` tokens, allocated once; the system gives pages of it as they are first written."""

    def __init__(self, ctx: int, kv_type: str = "f16", longest: int | None = None) -> None:
        """ctx: room in tokens; longest: the most that the model was made for."""
        self.ctx, self.kv_type, self.longest = ctx, kv_type, longest or ctx
        self.run: NDArray[np.int64] = aligned(8, np.int64)  # [tokens, first position] of a replay
        self.position = 0
        self._recurrent: list[NDArray[np.float32]] = []
        self._caches: list[NDArray[Any]] = []
        self._windows: list[int] = []
        self._touched: list[NDArray[np.uint8]] = []

    def recurrent(self, *shape: int) -> NDArray[np.float32]:
        """A layer's recurrent state, zero at the start of a text."""
        self._recurrent.append(aligned(shape, np.float32))
        return self._recurrent[-1]

    def cache(self, heads: int, width: int, window: int = 0) -> NDArray[Any]:
        """A layer's keys or values, [heads, ctx, row] of `kv_type`; only positions before `position` mean anything.

        window: how many of the last positions are read, if not all.
        """
        try:
            row, dtype = kv_cache.row_shape(self.kv_type, width)
        except ValueError as error:
            raise UsageError(
                f"keys and values cannot be kept as {self.kv_type}: {error}", "give --kv-type f16"
            ) from None
        self._caches.append(aligned((heads, self.ctx, row), dtype))
        self._windows.append(window or self.ctx)
        return self._caches[-1]

    def touched(self, experts: int) -> NDArray[np.uint8]:
        """A layer's marks, uint8 [experts]: 1 for an expert that was routed to."""
        self._touched.append(aligned(experts, np.uint8))
        return self._touched[-1]

    @property
    def experts_held(self) -> int:
        return sum(map(len, self._touched))

    @property
    def n_bytes(self) -> int:
        """Memory that a full context takes."""
        return sum(array.nbytes for array in (*self._recurrent, *self._caches))

    @property
    def cache_bytes(self) -> int:
        """Of these, what grows with the context: keys and values."""
        return sum(cache.nbytes for cache in self._caches)

    def bytes_per_step(self, position: int) -> float:
        """What the decode step at a position moves: recurrent states are read and written, caches read up to it."""
        read = sum(c.nbytes / self.ctx * min(position + 1, w) for c, w in zip(self._caches, self._windows, strict=True))
        return 2.0 * sum(array.nbytes for array in self._recurrent) + read

    def experts_touched(self) -> int:
        """Experts routed to since the marks were cleared."""
        return int(sum(marks.sum() for marks in self._touched))

    def clear_touched(self) -> None:
        for marks in self._touched:
            marks[:] = 0

    def reset(self) -> None:
        """Begin an empty text."""
        for array in self._recurrent:
            array[:] = 0
        self.position = 0

    def snapshot(self) -> Snapshot:
        """Copy what the state holds now."""
        caches = [cache[:, : self.position].copy() for cache in self._caches]
        return Snapshot(self.position, [array.copy() for array in self._recurrent], caches)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this state."""
        for array, before in zip(self._recurrent, snapshot.recurrent, strict=True):
            array[:] = before
        for cache, kept in zip(self._caches, snapshot.caches, strict=True):
            cache[:, : snapshot.position] = kept
        self.position = snapshot.position
