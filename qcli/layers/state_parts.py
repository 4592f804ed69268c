"""What a state consists of: caches of keys and values, whole or of a window, recurrent states, and inputs of convolutions.

Most have a place in a slot, the memory of one of several texts: an array of `slot_shape`, filled by `to_slot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.kernels.softmax import BLOCK


@dataclass(frozen=True)
class Cache:
    """Keys, or values, of a layer: [heads, rows, row], a row for each `tokens_per_row` positions."""

    array: NDArray[Any]
    window: int  # how many of the last positions are read
    tokens_per_row: int
    behind: int  # 1 if a position's row follows from the next token, too

    @property
    def slot_shape(self) -> tuple[int, ...]:
        """Of what a text has in a slot."""
        return self.array.shape

    def complete(self, position: int) -> int:
        """How many rows a text of so many tokens has."""
        return max(0, position - self.behind) // self.tokens_per_row

    def of(self, first: int, end: int) -> NDArray[Any]:
        """The rows that positions from `first` to `end` completed, a view."""
        return self.array[:, self.complete(first) : self.complete(end)]

    def bytes_read(self, position: int) -> float:
        """What the step at a position reads."""
        return self.array[:, 0].nbytes * min(position + 1, self.window) / self.tokens_per_row

    def to_slot(self, slot: NDArray[Any], position: int, first: int = 0) -> None:
        """Copy the rows of a text of so many tokens, from position `first` on."""
        slot[:, self.complete(first) : self.complete(position)] = self.of(first, position)

    def from_slot(self, slot: NDArray[Any], position: int, first: int = 0) -> None:
        """Copy them back."""
        self.of(first, position)[:] = slot[:, self.complete(first) : self.complete(position)]


def ring_rows(window: int, tokens: int) -> int:
    """Rows of a ring that has a window's positions while a replay writes those of so many tokens: whole blocks."""
    return -(-(window + tokens) // BLOCK) * BLOCK


@dataclass(frozen=True, eq=False)
class WindowCache:
    """Keys, or values, of a layer that attends to the last `window` positions: a ring [heads, rows, row], in which that of
    position p is in row p % rows. It has more rows than the window: those that a replay writes come on top.

    A copy has those of the window, [heads, window, row], the last one last.
    """

    array: NDArray[Any]
    window: int
    slot_rows: int

    @property
    def slot_shape(self) -> tuple[int, ...]:
        """Of what a text has in a slot: a ring of fewer rows, as it goes on by a token at a time."""
        return self.array.shape[0], self.slot_rows, self.array.shape[2]

    @property
    def rows(self) -> int:
        """Positions that it keeps."""
        return int(self.array.shape[1])

    @property
    def n_bytes(self) -> int:
        """Of a copy."""
        return self.window * int(self.array[:, 0].nbytes)

    def bytes_read(self, position: int) -> float:
        """What the step at a position reads."""
        return float(self.array[:, 0].nbytes * min(position + 1, self.window))

    def blank(self) -> NDArray[Any]:
        """Memory for a copy."""
        return np.empty((self.array.shape[0], self.window, self.array.shape[2]), self.array.dtype)

    def copy(self, position: int) -> NDArray[Any]:
        """What a text of so many tokens left."""
        copy, seen = self.blank(), self._seen(position)
        copy[:, : self.window - len(seen)] = 0
        copy[:, self.window - len(seen) :] = self.array[:, seen % self.rows]
        return copy

    def put_back(self, copy: NDArray[Any], position: int) -> None:
        """Write a copy back."""
        seen = self._seen(position)
        self.array[:, seen % self.rows] = copy[:, self.window - len(seen) :]

    def to_slot(self, slot: NDArray[Any], position: int, first: int = 0) -> None:
        """Copy what a text of so many tokens left, all of it."""
        seen = self._seen(position)
        slot[:, seen % self.slot_rows] = self.array[:, seen % self.rows]

    def from_slot(self, slot: NDArray[Any], position: int, first: int = 0) -> None:
        """Copy it back."""
        seen = self._seen(position)
        self.array[:, seen % self.rows] = slot[:, seen % self.slot_rows]

    def _seen(self, position: int) -> NDArray[np.int64]:
        """The positions that the next token attends to, or one more."""
        return np.arange(max(0, position - self.window), position)


@dataclass(frozen=True, eq=False)
class Recurrent:
    """A recurrent state of a layer."""

    array: NDArray[np.float32]

    @property
    def slot_shape(self) -> tuple[int, ...]:
        """Of what a text has in a slot."""
        return self.array.shape

    @property
    def n_bytes(self) -> int:
        """Of a copy."""
        return self.array.nbytes

    def blank(self) -> NDArray[np.float32]:
        """Memory for a copy."""
        return np.empty_like(self.array)

    def copy(self, position: int) -> NDArray[np.float32]:
        """What a text of so many tokens left."""
        return self.array.copy()

    def put_back(self, copy: NDArray[np.float32], position: int) -> None:
        """Write a copy back."""
        self.array[:] = copy

    def reset(self) -> None:
        """Begin an empty text."""
        self.array[:] = 0

    def to_slot(self, slot: NDArray[np.float32], position: int, first: int = 0) -> None:
        """Copy what a text of so many tokens left, all of it."""
        slot[:] = self.array

    def from_slot(self, slot: NDArray[np.float32], position: int, first: int = 0) -> None:
        """Copy it back."""
        self.array[:] = slot


@dataclass(frozen=True, eq=False)
class Ring(Recurrent):
    """The inputs of a convolution of `taps` taps: that of position p in row p % rows; of more rows than taps where a step
    may take tokens that turn out to be wrong. In a copy it is in row p % taps."""

    taps: int

    @property
    def n_bytes(self) -> int:
        """Of a copy."""
        return self.taps * int(self.array[0].nbytes)

    def blank(self) -> NDArray[np.float32]:
        """Memory for a copy."""
        return np.empty((self.taps, *self.array.shape[1:]), np.float32)

    def copy(self, position: int) -> NDArray[np.float32]:
        """What a text of so many tokens left."""
        copy = np.zeros((self.taps, *self.array.shape[1:]), np.float32)
        last = np.arange(max(0, position - self.taps), position)
        copy[last % self.taps] = self.array[last % len(self.array)]
        return copy

    def put_back(self, copy: NDArray[np.float32], position: int) -> None:
        """Write a copy back."""
        self.array[:] = 0  # what is before the beginning of a text
        last = np.arange(max(0, position - self.taps), position)
        self.array[last % len(self.array)] = copy[last % self.taps]


@dataclass(frozen=True, eq=False)
class RowsCopy:
    """A copy of the rows of keys and values of positions from `first` to `end`, in every cache."""

    first: int
    end: int
    caches: Sequence[Cache]
    arrays: Sequence[NDArray[Any]]

    @property
    def n_bytes(self) -> int:
        """Memory of the copies."""
        return sum(array.nbytes for array in self.arrays)

    def put_back(self, first: int, end: int) -> None:
        """Write those of positions from `first` to `end` back to where they were."""
        for cache, array in zip(self.caches, self.arrays, strict=True):
            rows, skipped = cache.of(first, end), cache.complete(first) - cache.complete(self.first)
            rows[:] = array[:, skipped : skipped + rows.shape[1]]
