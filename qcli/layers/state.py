"""What changes while a model runs: key-value caches, which grow with the context, and recurrent states, which do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcli.errors import UsageError
from qcli.host.signals import interrupts_wait
from qcli.layers.hidden_rows import HiddenRows
from qcli.layers.state_parts import Cache, Recurrent, Ring, RowsCopy
from quant.batch import Batch, Slots
from quant.kernels import kv_cache
from quant.plan import Plan, aligned

RecurrentCopies = tuple[NDArray[np.float32], ...]  # a copy of the recurrent states of all layers


class State:
    """The caches and recurrent states of a model's layers for `ctx` tokens, allocated once.

    The system gives pages of the memory as they are first written. Where a step takes several tokens, of which the last may
    be wrong, recurrent states have seen the first alone until it is known how many stay: `behind` is the number of those
    that stay and have not been seen (see quant.kernels.deferred). `catch_up` makes it 0.
    """

    def __init__(
        self, ctx: int, kv_type: str = "f16", longest: int | None = None, most_tokens: int = 1, mtp: bool = False
    ) -> None:
        """ctx: most tokens of a text; kv_type: of the caches, see `kv_cache.TYPES`; longest: most the model was made for;
        most_tokens: that a step may take; mtp: whether it is for a head of multi-token prediction, too, if there is one."""
        self.ctx, self.kv_type, self.longest, self.most_tokens = ctx, kv_type, longest or ctx, most_tokens
        self.mtp, self._guesses = mtp, False
        self.batch = Batch()
        self.position = self.behind = 0
        self.catch_up: Callable[[], None] = lambda: None  # the engine's, which replays what `on_catch_up` was told
        self.catching_up: list[Callable[[Plan], None]] = []
        self._recurrent: list[Recurrent | HiddenRows] = []
        self._deferred: list[NDArray[np.float32]] = []
        self._caches: list[Cache] = []
        self._touched: list[NDArray[np.uint8]] = []

    def recurrent(self, *shape: int) -> NDArray[np.float32]:
        """Allocate a recurrent state of a layer, float32 of this shape; zero at the start of a text."""
        self._recurrent.append(Recurrent(aligned(shape, np.float32)))
        return self._recurrent[-1].array

    def ring(self, taps: int, columns: int) -> NDArray[np.float32]:
        """Allocate the last inputs of a layer's convolution, float32 [rows, columns], that of position p in row p % rows."""
        self._recurrent.append(Ring(aligned((taps + self.most_tokens - 1, columns), np.float32), taps))
        return self._recurrent[-1].array

    def deferred(self, *shape: int) -> NDArray[np.float32] | None:
        """Allocate what the tokens of a step, but the first, add to a recurrent state, float32 [tokens, *shape]; None for 0."""
        if self.most_tokens == 1:
            return None
        self._deferred.append(aligned((self.most_tokens - 1, *shape), np.float32))
        return self._deferred[-1]

    def hidden_rows(self, most: int, columns: int) -> HiddenRows:
        """Allocate the last rows before the head, at most so many, for a head of multi-token prediction."""
        rows = HiddenRows(most, columns)
        self._recurrent.append(rows)
        return rows

    @contextmanager
    def for_guesses(self) -> Iterator[None]:
        """What is allocated within the block is that of a head of multi-token prediction: no part of a step."""
        self._guesses = True
        yield
        self._guesses = False

    def on_catch_up(self, trace: Callable[[Plan], None]) -> None:
        """Have these records replayed, too, where recurrent states are to see the tokens that they are behind."""
        self.catching_up.append(trace)

    def cache(
        self, heads: int, width: int, window: int = 0, tokens_per_row: int = 1, *, fine: bool = False, first: int = 0
    ) -> NDArray[Any]:
        """Allocate the cache of a layer's keys or values, [heads, rows, row] of `kv_type`, written up to `position`.

        width: of a key or value; window: how many of the last positions are read, if not all; tokens_per_row: how many
        positions one row stands for, where a layer keeps a mean of several keys; fine: rows of 16 bits are kept as i16, for
        a layer whose scores are large; first: so many columns of them have a scale of their own.
        """
        try:
            row, dtype = kv_cache.row_shape("i16" if fine and self.kv_type == "f16" else self.kv_type, width, first)
        except ValueError as error:
            raise UsageError(
                f"the conversation cannot be remembered as {self.kv_type}: {error}", "give --kv-type f16"
            ) from None
        rows = aligned((heads, -(-self.ctx // tokens_per_row), row), dtype)
        self._caches.append(Cache(rows, window or self.ctx, tokens_per_row, int(self._guesses)))
        return rows

    def touched(self, experts: int) -> NDArray[np.uint8]:
        """Allocate a layer's marks, uint8 [experts]: 1 for an expert that was routed to since they were cleared."""
        marks = aligned(experts, np.uint8)
        if not self._guesses:
            self._touched.append(marks)
        return marks

    @property
    def experts_total(self) -> int:
        """Routed experts of all layers."""
        return sum(map(len, self._touched))

    @property
    def kept_as(self) -> str:
        """What rows and recurrent states are kept, in a word: those of states with another one are of no use."""
        return self.kv_type + ("+mtp" if any(cache.behind for cache in self._caches) else "")

    @property
    def n_bytes(self) -> int:
        """Bytes that a full context takes."""
        rings = sum(recurrent.array.nbytes for recurrent in self._recurrent)
        return rings + sum(array.nbytes for array in self._deferred) + self.cache_bytes

    @property
    def recurrent_bytes(self) -> int:
        """Bytes of a copy of the recurrent states, which do not grow; 0: a text can be cut anywhere."""
        return sum(recurrent.n_bytes for recurrent in self._recurrent)

    @property
    def cache_bytes(self) -> int:
        """Of these, the bytes of keys and values, which grow with the context."""
        return sum(cache.rows.nbytes for cache in self._caches)

    def bytes_per_step(self, position: int) -> float:
        """Bytes that the decode step at a position moves: recurrent states are read and written, caches read up to it."""
        read = sum(cache.bytes_read(position) for cache in self._caches if not cache.behind)
        return 2.0 * sum(state.n_bytes for state in self._recurrent if isinstance(state, Recurrent)) + read

    def experts_touched(self) -> int:
        """Experts that were routed to since the marks were cleared, of all layers."""
        return int(sum(marks.sum() for marks in self._touched))

    def clear_touched(self) -> None:
        """Clear the marks of all layers."""
        for marks in self._touched:
            marks[:] = 0

    def reset(self) -> None:
        """Begin an empty text: recurrent states become zero."""
        for recurrent in self._recurrent:
            recurrent.reset()
        self.position = self.behind = 0

    def keep(self) -> None:
        """One more token of the last step stays, which the recurrent states will see later."""
        self.position += 1
        self.behind += 1

    def recurrent_copy(self) -> RecurrentCopies:
        """Copy the recurrent states. With the rows of keys and values up to `position`, they are all that a text left."""
        self.catch_up()
        return tuple(recurrent.copy(self.position) for recurrent in self._recurrent)

    def rewind(self, position: int, recurrent: RecurrentCopies) -> None:
        """Go back to a position of this text, whose rows of keys and values are still there; recurrent: copied there."""
        for own, before in zip(self._recurrent, recurrent, strict=True):
            own.put_back(before, position)
        self.position, self.behind = position, 0

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot."""
        return sum(array.nbytes for array, _ in self._in_slots(0))

    def slots(self, count: int) -> Slots:
        """Allocate the memory of so many texts, for plans that take a token of each; `copy_to` fills it."""
        slots = Slots()
        for array, _ in self._in_slots(0):
            slots.add(array, aligned((count, *array.shape), array.dtype))
        return slots

    def copy_to(self, slots: Slots, slot: int, first: int = 0) -> None:
        """Have the text in this state go on in a slot, which has the rows of its positions below `first` already."""
        if self.behind:
            self.catch_up()
        for array, used in self._in_slots(self.position, first):
            slots.like(array)[slot][used] = array[used]

    def copy_from(self, slots: Slots, slot: int, position: int, first: int = 0) -> None:
        """Have the text in a slot, of so many tokens, go on here, where the rows of positions below `first` are already.

        A head of multi-token prediction has not seen its end.
        """
        for array, used in self._in_slots(position, first):
            array[used] = slots.like(array)[slot][used]
        for rows in self._recurrent:
            if isinstance(rows, HiddenRows):
                rows.put_back(np.zeros_like(rows.array[0]), position)
        self.position, self.behind = position, 0

    def copy_rows_from(self, slots: Slots, slot: int, first: int, end: int) -> None:
        """Write the rows of positions from `first` to `end` of a slot's text where they are in this state."""
        for array, used in self._rows_in_slots(first, end):
            array[used] = slots.like(array)[slot][used]

    def _in_slots(self, position: int, first: int = 0) -> Iterator[tuple[NDArray[Any], Any]]:
        """The arrays that slots have, and the part of each that a text of so many tokens uses; of rows, those from `first`."""
        for recurrent in self._recurrent:
            if isinstance(recurrent, Recurrent):
                yield recurrent.array, ...
        yield from self._rows_in_slots(first, position)

    def _rows_in_slots(self, first: int, end: int) -> Iterator[tuple[NDArray[Any], Any]]:
        """The caches that slots have, none for guesses, and where in each the rows of some positions are."""
        for cache in self._caches:
            if not cache.behind:
                yield cache.rows, np.s_[:, cache.complete(first) : cache.complete(end)]

    def rows(self, first: int, end: int) -> list[NDArray[Any]]:
        """The rows of keys and values of positions from `first` to `end`, in every cache: views [heads, rows, row]."""
        return [cache.of(first, end) for cache in self._caches]

    def copy_rows(self, first: int, end: int) -> RowsCopy:
        """Copy the rows of positions from `first` to `end`, for a text that another one is about to overwrite."""
        return RowsCopy(first, end, self._caches, [rows.copy() for rows in self.rows(first, end)])


@contextmanager
def all_or_nothing(state: State, wait: bool) -> Iterator[None]:
    """Let what the block adds to a text be in the state whole or not at all: have Ctrl-C wait for it, or undo it.

    An error in the midst undoes it too, unless Ctrl-C waits: then nobody knows what the recurrent states are.
    """
    if wait:
        with interrupts_wait():
            yield
        return
    position, before = state.position, state.recurrent_copy()
    try:
        yield
    except BaseException:
        with interrupts_wait():
            state.rewind(position, before)
        raise
