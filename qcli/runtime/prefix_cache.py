"""The prefix cache: a prompt that begins like what the engine has in its state prefills only the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qcli.progress import Progress

if TYPE_CHECKING:
    from qcli.layers.state import Snapshot
    from qcli.runtime.engine import Engine


@dataclass(frozen=True)
class Checkpoint:
    """A copy of the state after some ids, to go back to: a recurrent state cannot be rewound, only restored."""

    ids: list[int]
    snapshot: Snapshot
    logits: np.ndarray  # float32 [vocab], of the last id


class PrefixCache:
    """An engine, the ids that its state has, and at most one checkpoint of an earlier state."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._ids: list[int] = []
        self._valid = True  # whether the state has exactly _ids: not after an interrupted call
        self._checkpoint: Checkpoint | None = None
        self.checkpoint_at: int | None = None  # after how many ids the next prefill makes a checkpoint
        self.prefilled = 0  # ids that the last prefill did not find in the state

    def prefill(self, ids: Sequence[int], progress: Progress | None = None) -> np.ndarray:
        """Bring the state to exactly these ids, keeping the longest prefix that is there; float32 [vocab] of the last."""
        ids = list(ids)
        start = self._rewind(ids)
        self.prefilled = len(ids) - start
        if self.checkpoint_at is not None and start < self.checkpoint_at <= len(ids):
            self._checkpoint = None  # two snapshots of a long chat need not fit into memory
            logits = self._append(ids[start : self.checkpoint_at], progress)
            self._checkpoint = Checkpoint(ids[: self.checkpoint_at], self.engine.snapshot(), logits.copy())
            start = self.checkpoint_at
        if start < len(ids):
            return self._append(ids[start:], progress)
        assert self._checkpoint is not None  # _rewind goes to the very end only by way of the checkpoint
        return self._checkpoint.logits

    def step(self, token: int) -> np.ndarray:
        """Add one token; float32 [vocab]."""
        self._valid = False
        logits = self.engine.step(token)
        self._ids.append(token)
        self._valid = True
        return logits

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [T, vocab] of every position, from an empty state; the next prefill starts from an empty one, too."""
        self._valid = False
        return self.engine.logits(ids)

    def _append(self, ids: list[int], progress: Progress | None) -> np.ndarray:
        self._valid = False
        logits = self.engine.prefill(ids, progress)
        self._ids += ids
        self._valid = True
        return logits

    def _rewind(self, ids: list[int]) -> int:
        """Bring the state to the longest prefix of ids that it or the checkpoint has; the prefix's length."""
        if self._valid and len(self._ids) < len(ids) and ids[: len(self._ids)] == self._ids:
            return len(self._ids)
        self._valid = False
        if self._checkpoint and ids[: len(self._checkpoint.ids)] == self._checkpoint.ids:
            self.engine.restore(self._checkpoint.snapshot)
            self._ids = list(self._checkpoint.ids)
        else:
            self.engine.reset()
            self._ids = []
        self._valid = True
        return len(self._ids)
