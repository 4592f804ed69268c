"""What changes while a model runs: key-value caches, which grow with the context, and recurrent states, which do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcli.errors import UsageError
from quant.kernels import kv_cache
from quant.plan import Batch, aligned


@dataclass(frozen=True)
class Snapshot:
    """A copy of a state at a position: a recurrent state cannot be computed backwards, only be restored."""

    position: int
    recurrent: list[NDArray[np.float32]]
    caches: list[NDArray[Any]]


class State:
    """The caches and recurrent states of a model's layers for `ctx` tokens, allocated once.

    The system gives pages of the memory as they are first written.
    """

    def __init__(self, ctx: int, kv_type: str = "f16", longest: int | None = None) -> None:
        """ctx: most tokens of a text; kv_type: of the caches, "f16" or "q8_0"; longest: most tokens the model was made for."""
        self.ctx, self.kv_type, self.longest = ctx, kv_type, longest or ctx
        self.batch = Batch()
        self.position = 0
        self._recurrent: list[NDArray[np.float32]] = []
        self._caches: list[NDArray[Any]] = []
        self._windows: list[int] = []
        self._touched: list[NDArray[np.uint8]] = []

    def recurrent(self, *shape: int) -> NDArray[np.float32]:
        """Allocate a recurrent state of a layer, float32 of this shape; zero at the start of a text."""
        self._recurrent.append(aligned(shape, np.float32))
        return self._recurrent[-1]

    def cache(self, heads: int, width: int, window: int = 0) -> NDArray[Any]:
        """Allocate the cache of a layer's keys or values, [heads, ctx, row] of `kv_type`, written up to `position`.

        width: of a key or value; window: how many of the last positions are read, if not all.
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
        """Allocate a layer's marks, uint8 [experts]: 1 for an expert that was routed to since they were cleared."""
        self._touched.append(aligned(experts, np.uint8))
        return self._touched[-1]

    @property
    def experts_total(self) -> int:
        """Routed experts of all layers."""
        return sum(map(len, self._touched))

    @property
    def n_bytes(self) -> int:
        """Bytes that a full context takes."""
        return sum(array.nbytes for array in (*self._recurrent, *self._caches))

    @property
    def cache_bytes(self) -> int:
        """Of these, the bytes of keys and values, which grow with the context."""
        return sum(cache.nbytes for cache in self._caches)

    def bytes_per_step(self, position: int) -> float:
        """Bytes that the decode step at a position moves: recurrent states are read and written, caches read up to it."""
        read = sum(c.nbytes / self.ctx * min(position + 1, w) for c, w in zip(self._caches, self._windows, strict=True))
        return 2.0 * sum(array.nbytes for array in self._recurrent) + read

    def experts_touched(self) -> int:
        """Experts that were routed to since the marks were cleared, of all layers."""
        return int(sum(marks.sum() for marks in self._touched))

    def clear_touched(self) -> None:
        """Clear the marks of all layers."""
        for marks in self._touched:
            marks[:] = 0

    def reset(self) -> None:
        """Begin an empty text: recurrent states become zero."""
        for array in self._recurrent:
            array[:] = 0
        self.position = 0

    def snapshot(self) -> Snapshot:
        """Copy the recurrent states, and the caches up to `position`."""
        caches = [cache[:, : self.position].copy() for cache in self._caches]
        return Snapshot(self.position, [array.copy() for array in self._recurrent], caches)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this state."""
        for array, before in zip(self._recurrent, snapshot.recurrent, strict=True):
            array[:] = before
        for cache, kept in zip(self._caches, snapshot.caches, strict=True):
            cache[:, : snapshot.position] = kept
        self.position = snapshot.position
