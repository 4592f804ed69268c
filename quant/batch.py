"""What one replay of a plan takes: some tokens of one text, one after the other, or one token of each of several texts.

Where there are several texts, the memory of each is a slot: arrays of keys, values and recurrent states have one more
dimension in front, and kernels add a token's slot times the bytes from one slot to the next, which are 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.jit import inline
from quant.layout import Layout
from quant.simd import load_i64

BATCH = Layout(
    "tokens",
    "position",  # of the first; of several texts' tokens each has its own
    "deferred",  # tokens of the last replay, behind its first, that recurrent states have not seen: see deferred
    "slots",  # int64 [tokens], the slot of each token's text; 0 where all are of one
    "positions",  # int64 [tokens], likewise
)


class Batch:
    """What one replay takes, in memory that kernels read by BATCH."""

    def __init__(self, tokens: int = 0, texts: int = 0) -> None:
        """texts: of how many texts a replay takes a token at most; 0: of one text it takes some."""
        self.texts = texts
        self.table: NDArray[np.int64] = np.zeros(8, np.int64)
        self.table[0] = tokens
        self._rows: NDArray[np.int64] = np.zeros((2, texts), np.int64)
        if texts:
            self.table[3:5] = [row.ctypes.data for row in self._rows]

    @property
    def tokens(self) -> int:
        """How many there are."""
        return int(self.table[0])

    def tokens_of_text(self, tokens: int) -> int:
        """The most tokens of one text, where a replay takes at most so many in all."""
        return 1 if self.texts else tokens

    def set(self, tokens: int, position: int, deferred: int = 0) -> None:
        """Before a replay: say what it takes of one text."""
        self.table[:3] = tokens, position, deferred  # in the order of BATCH

    def set_texts(self, slots: Sequence[int], positions: Sequence[int]) -> None:
        """Before a replay: it takes a token of each of these texts, at these positions."""
        self._rows[:, : len(slots)] = slots, positions
        self.table[0] = len(slots)


class Slots:
    """Memory for the states of several texts: for each array of the state of one, an array with one more dimension."""

    def __init__(self) -> None:
        self._arrays: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def add(self, array: NDArray[Any], slots: NDArray[Any]) -> None:
        """The memory in place of an array; the same but for caches that are rings, which may have fewer rows."""
        self._arrays.append((array, slots))

    def like(self, array: NDArray[Any]) -> NDArray[Any]:
        """What there is in place of an array."""
        return next(slots for other, slots in self._arrays if other is array)

    def of(self, view: NDArray[Any]) -> tuple[int, int]:
        """Where in the first slot is what a view of an array has, and the bytes to the next slot."""
        address = view.ctypes.data
        for array, slots in self._arrays:
            if 0 <= address - array.ctypes.data < array.nbytes:
                return slots.ctypes.data + address - array.ctypes.data, slots.strides[0]
        raise KeyError("no such array is in the slots")


@inline
def position_of(batch, t):
    """The position of token t in its text."""
    positions = load_i64(batch + BATCH.positions)
    return load_i64(positions + 8 * t) if positions else load_i64(batch + BATCH.position) + t


@inline
def slot_of(batch, t):
    """The slot of token t's text."""
    slots = load_i64(batch + BATCH.slots)
    return load_i64(slots + 8 * t) if slots else 0


@inline
def of_one_text(batch):
    """Whether all tokens are of one text, one after the other."""
    return load_i64(batch + BATCH.slots) == 0


@inline
def texts_of(batch):
    """How many texts the tokens are of."""
    return 1 if of_one_text(batch) else load_i64(batch + BATCH.tokens)


@inline
def tokens_of(batch, text):
    """The first token of a text, counted from 0, and the one behind its last."""
    return (0, load_i64(batch + BATCH.tokens)) if of_one_text(batch) else (text, text + 1)
