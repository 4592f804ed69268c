"""What changes while a model runs: key-value caches, which grow with the context, and recurrent states, which do not.

Nor do the caches of layers that attend to a window of the last positions: they are rings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcli.errors import UsageError
from qcli.host.signals import interrupts_wait
from qcli.layers.hidden_rows import HiddenRows
from qcli.layers.state_parts import Cache, Recurrent, Ring, RowsCopy, WindowCache, ring_rows
from quant.batch import Batch, Slots
from quant.kernels import kv_cache
from quant.plan import Plan, aligned

RecurrentCopies = tuple[NDArray[Any], ...]  # of the recurrent states of all layers, then of all windows


class State:
    """The caches and recurrent states of a model's layers for `ctx` tokens, allocated once.

    The system gives pages of the memory as they are first written. Of a layer with a window, keys and values of the window
    are kept, and as many more as a replay writes, which overwrites older ones: see `can_go_back`. Where a step takes several
    tokens, of which the last may be wrong, recurrent states have seen the first alone until it is known how many stay:
    `behind` is the number of those that stay and have not been seen (see quant.kernels.deferred). `catch_up` makes it 0.
    """

    def __init__(
        self, ctx: int, kv_type: str = "f16", longest: int | None = None, most_tokens: int = 1, mtp: bool = False,
        chunk: int | None = None,
    ) -> None:  # fmt: skip
        """ctx: most tokens of a text; kv_type: of the caches, see `kv_cache.TYPES`; longest: most the model was made for;
        most_tokens: that a step may take; mtp: whether it is for a head of multi-token prediction, too, if there is one;
        chunk: most tokens of a prompt that are taken together; where it is not told, windows keep the whole text."""
        self.ctx, self.kv_type, self.longest, self.most_tokens = ctx, kv_type, longest or ctx, most_tokens
        self.mtp, self._guesses, self.chunk = mtp, False, chunk
        self.batch = Batch()
        self.position = self.behind = 0
        self.catch_up: Callable[[], None] = lambda: None  # the engine's, which replays what `on_catch_up` was told
        self.catching_up: list[Callable[[Plan], None]] = []
        self._recurrent: list[Recurrent | HiddenRows] = []
        self._deferred: list[NDArray[np.float32]] = []
        self._caches: list[Cache] = []
        self._windows: list[WindowCache] = []
        self._put_back = 0  # where the windows were put back last
        self._written = 0  # the end of what was written since
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

        width: of a key or value; window: how many of the last positions are read, if not all: where the context is longer
        than these and the tokens of a replay, the cache is a ring (see WindowCache); tokens_per_row: how many
        positions one row stands for, where a layer keeps a mean of several keys; fine: rows of 16 bits are kept as i16, for
        a layer whose scores are large; first: so many columns of them have a scale of their own.
        """
        try:
            row, dtype = kv_cache.row_shape("i16" if fine and self.kv_type == "f16" else self.kv_type, width, first)
        except ValueError as error:
            raise UsageError(
                f"the conversation cannot be remembered as {self.kv_type}: {error}",
                ("give --kv-type f16", "take another model"),
            ) from None
        ring = ring_rows(window, max(self.chunk or self.ctx, self.most_tokens))
        if window and ring < self.ctx and not self._guesses:
            slot_rows = min(ring, ring_rows(window, self.most_tokens))
            self._windows.append(WindowCache(aligned((heads, ring, row), dtype), window, slot_rows))
            return self._windows[-1].array
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
        windows = f"+{len(self._windows)} windows" if self._windows else ""
        return self.kv_type + ("+mtp" if any(cache.behind for cache in self._caches) else "") + windows

    @property
    def n_bytes(self) -> int:
        """Bytes that a full context takes."""
        rings = sum(recurrent.array.nbytes for recurrent in self._recurrent)
        return rings + sum(array.nbytes for array in self._deferred) + self.cache_bytes

    @property
    def recurrent_bytes(self) -> int:
        """Bytes of a copy of the recurrent states; 0: a text can be cut wherever windows allow it."""
        return sum(recurrent.n_bytes for recurrent in self._recurrent)

    @property
    def window_bytes(self) -> int:
        """Bytes of a copy of the keys and values of windows."""
        return sum(window.n_bytes for window in self._windows)

    @property
    def cache_bytes(self) -> int:
        """Of these, the bytes of keys and values."""
        return sum(cache.array.nbytes for caches in (self._caches, self._windows) for cache in caches)

    def bytes_per_step(self, position: int) -> float:
        """Bytes that the decode step at a position moves: recurrent states are read and written, caches read up to it."""
        read = sum(cache.bytes_read(position) for cache in self._caches if not cache.behind)
        read += sum(window.bytes_read(position) for window in self._windows)
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
        self.position = self.behind = self._put_back = self._written = 0

    def begin(self, tokens: int) -> None:
        """Before a replay: it takes so many tokens of the text, from `position` on."""
        self.batch.set(tokens, self.position, self.behind)
        self._written = max(self._written, self.position + tokens)

    def keep(self) -> None:
        """One more token of the last step stays, which the recurrent states will see later."""
        self.position += 1
        self.behind += 1

    def recurrent_copy(self) -> RecurrentCopies:
        """Copy recurrent states and windows. With the rows of other keys and values up to `position`, they are all that a
        text left."""
        return *self.undo_copy(), *(window.copy(self.position) for window in self._windows)

    def undo_copy(self) -> RecurrentCopies:
        """Copy the recurrent states alone, to go back to before the next chunk: windows still have what is needed then."""
        self.catch_up()
        return tuple(recurrent.copy(self.position) for recurrent in self._recurrent)

    def blank_copy(self) -> RecurrentCopies:
        """Memory for copies of recurrent states and windows."""
        return tuple(part.blank() for part in (*self._recurrent, *self._windows))

    def can_go_back(self, position: int) -> bool:
        """Whether windows have all that a position of this text needs: what was written since has not overwritten it."""
        if position < self._put_back:
            return not self._windows
        return all(self._written - window.rows <= max(0, position - window.window) for window in self._windows)

    def rewind(self, position: int, recurrent: RecurrentCopies) -> None:
        """Go back to a position of this text, whose rows of keys and values are still there.

        recurrent: copied there; without windows where `can_go_back` allows it, else it is a ValueError.
        """
        states = len(self._recurrent)
        windows = recurrent[states:]
        if not windows and not self.can_go_back(position):
            raise ValueError(f"the windows of position {position} were overwritten")
        for own, before in zip(self._recurrent, recurrent[:states], strict=True):
            own.put_back(before, position)
        if windows:
            for window, before in zip(self._windows, windows, strict=True):
                window.put_back(before, position)
            self._put_back = self._written = position
        self.position, self.behind = position, 0

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot."""
        return sum(part.array.itemsize * math.prod(part.slot_shape) for part in self._in_slots())

    def slots(self, count: int) -> Slots:
        """Allocate the memory of so many texts, for plans that take a token of each; `copy_to` fills it."""
        slots = Slots()
        for part in self._in_slots():
            slots.add(part.array, aligned((count, *part.slot_shape), part.array.dtype))
        return slots

    def copy_to(self, slots: Slots, slot: int, first: int = 0) -> None:
        """Have the text in this state go on in a slot, which has the rows of its positions below `first` already."""
        if self.behind:
            self.catch_up()
        for part in self._in_slots():
            part.to_slot(slots.like(part.array)[slot], self.position, first)

    def copy_from(self, slots: Slots, slot: int, position: int, first: int = 0) -> None:
        """Have the text in a slot, of so many tokens, go on here, where the rows of positions below `first` are already.

        A head of multi-token prediction has not seen its end.
        """
        for part in self._in_slots():
            part.from_slot(slots.like(part.array)[slot], position, first)
        for rows in self._recurrent:
            if isinstance(rows, HiddenRows):
                rows.put_back(np.zeros_like(rows.array[0]), position)
        self.position = self._put_back = self._written = position
        self.behind = 0

    def copy_rows_from(self, slots: Slots, slot: int, first: int, end: int) -> None:
        """Write the rows of positions from `first` to `end` of a slot's text where they are in this state; none of windows."""
        for cache in self._caches:
            if not cache.behind:
                cache.from_slot(slots.like(cache.array)[slot], end, first)

    def _in_slots(self) -> Iterator[Recurrent | Cache | WindowCache]:
        """What slots have: nothing for guesses."""
        yield from (recurrent for recurrent in self._recurrent if isinstance(recurrent, Recurrent))
        yield from (cache for cache in self._caches if not cache.behind)
        yield from self._windows

    def rows(self, first: int, end: int) -> list[NDArray[Any]]:
        """The rows of keys and values of positions from `first` to `end`, in every whole cache: views [heads, rows, row]."""
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
    position, before = state.position, state.undo_copy()
    try:
        yield
    except BaseException:
        with interrupts_wait():
            state.rewind(position, before)
        raise
