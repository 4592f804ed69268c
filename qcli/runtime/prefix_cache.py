"""What the engine's state holds, so that the next turn of a chat prefills only what is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qcli.progress import Progress

if TYPE_CHECKING:
    from qcli.runtime.engine import Engine


@dataclass(frozen=True)
class Mark:
    """A point to come back to: a recurrent state cannot be rewound, only restored."""

    ids: list[int]
    snapshot: Any
    logits: np.ndarray  # float32 [vocab], of the last id


class Held:
    """An engine whose `prefill` means "hold exactly these ids", reusing the longest beginning that it has."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._ids: list[int] = []
        self._known = True  # whether the state holds exactly _ids: not after an interrupted call
        self._mark: Mark | None = None
        self.mark_at: int | None = None  # where the next prefill leaves a mark
        self.prefilled = 0  # ids that the last prefill did not find in the state

    def prefill(self, ids: Sequence[int], progress: Progress | None = None) -> np.ndarray:
        """Bring the state to hold ids; float32 [vocab] of the last one."""
        ids = list(ids)
        start = self._rewind(ids)
        self.prefilled = len(ids) - start
        if self.mark_at is not None and start < self.mark_at <= len(ids):
            self._mark = None  # two snapshots of a long chat need not fit
            logits = self._feed(ids[start : self.mark_at], progress)
            self._mark = Mark(ids[: self.mark_at], self.engine.snapshot(), logits.copy())
            start = self.mark_at
        if start < len(ids):
            return self._feed(ids[start:], progress)
        assert self._mark is not None  # _rewind goes to the very end only by way of the mark
        return self._mark.logits

    def step(self, token: int) -> np.ndarray:
        """Add one token; float32 [vocab]."""
        self._known = False
        logits = self.engine.step(token)
        self._ids.append(token)
        self._known = True
        return logits

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [T, vocab] of every position, from an empty state."""
        self._known = False
        return self.engine.logits(ids)

    def _feed(self, ids: list[int], progress: Progress | None) -> np.ndarray:
        self._known = False
        logits = self.engine.prefill(ids, progress)
        self._ids += ids
        self._known = True
        return logits

    def _rewind(self, ids: list[int]) -> int:
        """Leave a beginning of ids in the state, the longest there is; its length."""
        if self._known and len(self._ids) < len(ids) and ids[: len(self._ids)] == self._ids:
            return len(self._ids)
        self._known = False
        if self._mark and ids[: len(self._mark.ids)] == self._mark.ids:
            self.engine.restore(self._mark.snapshot)
            self._ids = list(self._mark.ids)
        else:
            self.engine.reset()
            self._ids = []
        self._known = True
        return len(self._ids)
