"""What a state consists of: caches of keys and values, recurrent states, and the inputs of convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cache:
    """Keys, or values, of a layer: [heads, rows, row], a row for each `tokens_per_row` positions."""

    rows: NDArray[Any]
    window: int  # how many of the last positions are read
    tokens_per_row: int
    behind: int  # 1 if a position's row follows from the next token, too

    def complete(self, position: int) -> int:
        """How many rows a text of so many tokens has."""
        return max(0, position - self.behind) // self.tokens_per_row

    def of(self, first: int, end: int) -> NDArray[Any]:
        """The rows that positions from `first` to `end` completed, a view."""
        return self.rows[:, self.complete(first) : self.complete(end)]

    def bytes_read(self, position: int) -> float:
        """What the step at a position reads."""
        return self.rows[:, 0].nbytes * min(position + 1, self.window) / self.tokens_per_row


@dataclass(frozen=True, eq=False)
class Recurrent:
    """A recurrent state of a layer."""

    array: NDArray[np.float32]

    @property
    def n_bytes(self) -> int:
        """Of a copy."""
        return self.array.nbytes

    def copy(self, position: int) -> NDArray[np.float32]:
        """What a text of so many tokens left."""
        return self.array.copy()

    def put_back(self, copy: NDArray[np.float32], position: int) -> None:
        """Write a copy back."""
        self.array[:] = copy

    def reset(self) -> None:
        """Begin an empty text."""
        self.array[:] = 0


@dataclass(frozen=True, eq=False)
class Ring(Recurrent):
    """The inputs of a convolution of `taps` taps: that of position p in row p % rows; of more rows than taps where a step
    may take tokens that turn out to be wrong. In a copy it is in row p % taps."""

    taps: int

    @property
    def n_bytes(self) -> int:
        """Of a copy."""
        return self.taps * int(self.array[0].nbytes)

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
