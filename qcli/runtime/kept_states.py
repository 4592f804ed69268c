"""Checkpoints in memory, and the keys and values that they need where another text has overwritten them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from qcli.layers.state import State
from qcli.runtime.checkpoint import Checkpoint
from qcli.runtime.history import common_length


class Rows(Protocol):
    """Keys and values of a text from a position on, outside of the state."""

    @property
    def first(self) -> int:
        """The position."""

    def put_back(self, first: int, end: int) -> None:
        """Write those of positions from `first` to `end` into the state."""


@dataclass(frozen=True, eq=False)
class _Branch:
    """A text that was left: its history from the start, and keys and values from where it was left."""

    history: Sequence[int]
    rows: Rows
    n_bytes: int = 0  # that are kept for it


class KeptStates:
    """At most so many bytes of checkpoints and of rows, the least recently used given up first."""

    def __init__(self, state: State, most_bytes: int) -> None:
        self._state, self.most_bytes = state, most_bytes
        self.checkpoints: list[Checkpoint] = []  # the most recently used last
        self._branches: list[_Branch] = []
        self._there: Sequence[int] = ()  # the history of rows that are in the state; there may be more
        # histories and rows of texts that others keep, as `Sequences` does; by default there are none
        self.elsewhere: Callable[[], Iterable[tuple[Sequence[int], Rows]]] = tuple

    @property
    def n_bytes(self) -> int:
        """Memory of all that is kept."""
        return sum(c.n_bytes for c in self.checkpoints) + sum(branch.n_bytes for branch in self._branches)

    def add(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint of the text that is in the state; an earlier one of the same ids goes."""
        self.checkpoints = [c for c in self.checkpoints if c.ids != checkpoint.ids] + [checkpoint]
        self._there = checkpoint.history
        self._trim()

    def longest(self, ids: Sequence[int], among: Collection[int] | None = None) -> Checkpoint | None:
        """The checkpoint with the most ids that a text begins with; one of all of them has the logits after them.

        among: positions where it may be; None for anywhere.
        """
        found = [c for c in self.checkpoints if c.ids == tuple(ids[: c.position])]
        found = found if among is None else [c for c in found if c.position in among]
        found = [c for c in found if c.position < len(ids) or c.logits is not None]
        return max(found, key=lambda c: c.position, default=None)

    def use(self, checkpoint: Checkpoint) -> None:
        """Count a checkpoint as the most recently used, which is not given up."""
        self.checkpoints.remove(checkpoint)
        self.checkpoints.append(checkpoint)

    def leave(self, history: Sequence[int], position: int) -> None:
        """Copy what checkpoints need of the text in the state, whose rows from a position on will be overwritten."""
        beyond = [c.position for c in self.checkpoints if position < c.position == common_length(c.history, history)]
        self._there = history[:position]
        if beyond and not any(common_length(other, history) >= max(beyond) for other, _ in self.elsewhere()):
            end = max(beyond)
            rows = self._state.copy_rows(position, end)
            self._branches.append(_Branch(tuple(history[:end]), rows, rows.n_bytes + 8 * end))
            self._trim()

    def put_back(self, checkpoint: Checkpoint, there: int) -> bool:
        """Bring the state to a checkpoint, of whose rows the first `there` are in the state; whether it could be done."""
        for branch, end in self._path(checkpoint, there):
            branch.rows.put_back(there, end)
            there = end
        if there < checkpoint.position:
            self.checkpoints.remove(checkpoint)
            return False
        self._state.rewind(checkpoint.position, checkpoint.recurrent)
        self.add(checkpoint)
        return True

    def clear(self) -> int:
        """Give everything up; the bytes that it took."""
        n_bytes = self.n_bytes
        self.checkpoints, self._branches = [], []
        return n_bytes

    def _path(self, checkpoint: Checkpoint, there: int) -> list[tuple[_Branch, int]]:
        """The branches whose rows lead from a position to a checkpoint, each with the position up to which it is followed."""
        path, branches = [], [*self._branches, *(_Branch(*other) for other in self.elsewhere())]
        while there < checkpoint.position:
            ends = [(common_length(b.history, checkpoint.history), b) for b in branches if b.rows.first <= there]
            end, branch = max(ends, key=lambda pair: pair[0], default=(there, None))
            if branch is None or end <= there:
                break
            path.append((branch, end))
            there = end
        return path

    def _trim(self) -> None:
        """Give up the least recently used, all but the newest checkpoint, and rows that no checkpoint needs any more."""
        self._branches = self._needed()
        while len(self.checkpoints) > 1 and self.n_bytes > self.most_bytes:
            del self.checkpoints[0]
            self._branches = self._needed()

    def _needed(self) -> list[_Branch]:
        paths = [self._path(c, common_length(self._there, c.history)) for c in self.checkpoints]
        used = {id(branch) for path in paths for branch, _ in path}
        return [branch for branch in self._branches if id(branch) in used]
