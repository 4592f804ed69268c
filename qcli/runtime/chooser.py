"""Chooses the next token of an answer: what has to come, else what is drawn of what may come."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qcli.runtime.sampler import Sampler

if TYPE_CHECKING:
    import numpy as np

    from qcli.runtime.log_probs import LogProbs


class Chooser:
    """In place of a sampler, with a say of others before it.

    What has to come is taken one token after the other like what is drawn, each after a step of the model: were it read as
    a chunk, the last bits of the state would be others, and so might be what is drawn later. It would gain little, too: as each
    token has experts of its own, 4 tokens of Qwen3-Next in a chunk take 1.76 ms each for two layers, in steps 1.92 ms.
    """

    def __init__(
        self,
        sampler: Sampler,
        next_id: Callable[[], int | None] = lambda: None,
        mask: Callable[[], np.ndarray | None] = lambda: None,
        log_probs: LogProbs | None = None,
    ) -> None:
        """next_id: the id that has to come next, None to draw one of those that are in the mask; log_probs: hears of each."""
        self._next_id, self._mask, self._log_probs = next_id, mask, log_probs
        self._draw, self.accept = sampler.sample, sampler.accept

    def sample(self, logits: np.ndarray) -> int:
        """The next token after logits, float32 [vocab or more]. Raises QcliError if there can be none."""
        forced = self._next_id()
        token = self._draw(logits, self._mask()) if forced is None else forced
        if self._log_probs:
            self._log_probs.note(logits, token)
        return token
