"""A checkpoint: what a text left in the state besides its keys and values, which stay where they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qcli.layers.state import RecurrentCopies


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A position of a text to go back to: a recurrent state cannot be computed backwards, only be restored.

    It copies no keys and values but those of windows: the others of its ids never change while the text goes on.
    """

    ids: tuple[int, ...]  # of the text up to here
    recurrent: RecurrentCopies  # and windows
    logits: NDArray[np.float32] | None  # float32 [vocab], after the last id
    history: tuple[int, ...] = ()  # of each id, 32 bits that follow from it and all before it, and how they were cut

    @property
    def position(self) -> int:
        """Tokens of the text up to here."""
        return len(self.ids)

    @property
    def n_bytes(self) -> int:
        """Memory of its arrays and ids."""
        logits = 0 if self.logits is None else self.logits.nbytes
        return sum(array.nbytes for array in self.recurrent) + logits + 16 * len(self.ids)


Keep = Literal["beginnings", "turns", "shared"] | None  # what to keep on disk; "shared": nothing


@dataclass(frozen=True)
class Marks:
    """Where to keep checkpoints of a prompt and its answer: after so many of the prompt's ids."""

    positions: frozenset[int] = frozenset()
    on_disk: frozenset[int] = frozenset()  # those of them that the next process may want
    after_answer: bool = False
    answer_on_disk: bool = False
    alone: bool = False  # whether these alone may be gone on from, so that no bit depends on what was there before

    def with_one_at(self, position: int) -> Marks:
        """These, and one more, in memory alone."""
        return replace(self, positions=self.positions | {position})


NO_MARKS, ALONE = Marks(), Marks(alone=True)
