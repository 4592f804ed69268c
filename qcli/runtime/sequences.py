"""Several texts that are decoded together: a step takes a token of each, and reads weights once for all.

What a text gets is, to the bit, what it would get alone, whoever the others are. Each begins as the text in the engine's own
state, where its prompt was read; it goes on in a slot, while another prompt is read there: a step may be taken in the midst of
that, too, as it shares no memory with it; but not where experts are streamed, of which a prompt relies on those in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ContextOverflowError, QcliError
from quant.batch import Batch
from quant.plan import aligned

if TYPE_CHECKING:
    from qcli.runtime.engine import Engine


class Sequences:
    """Slots for up to `most` texts of an engine's model, for the one thread that uses the engine."""

    def __init__(self, engine: Engine, most: int) -> None:
        """Allocate the slots, and compile the step. Raises QcliError if the model has no steps of several tokens."""
        if engine.most_tokens == 1:
            raise QcliError("this model decodes one text at a time", "read one answer after the other")
        self._engine, self.most = engine, most
        self._slots, self._batch = engine.state.slots(most), Batch(texts=most)
        self._positions = dict[int, int]()  # of the slots that are taken
        self._ids: NDArray[np.int64] = aligned(most, np.int64)
        self._step, _, self._logits = engine.programs.stepping(self._ids, most, self._batch, self._slots)

    def __len__(self) -> int:
        return len(self._positions)

    def join(self) -> int:
        """Have the text in the engine's state go on in a slot; which one. Raises QcliError if all are taken."""
        free = next((slot for slot in range(self.most) if slot not in self._positions), None)
        if free is None:
            raise QcliError(f"{self.most} texts are decoded together already", "wait until one of them ends")
        self._engine.state.copy_to(self._slots, free)
        self._positions[free] = self._engine.position
        return free

    def leave(self, slot: int) -> None:
        """Give a slot back."""
        del self._positions[slot]

    def position(self, slot: int) -> int:
        """Tokens of the text in a slot."""
        return self._positions[slot]

    def step(self, tokens: dict[int, int]) -> NDArray[np.float32]:
        """Append a token to each of some texts, given by slot; the logits after each, float32 [texts, vocab], in their order.

        They are overwritten by the next call. Raises ContextOverflowError if a text is as long as the context.
        """
        if max(self._positions[slot] for slot in tokens) >= self._engine.ctx:
            raise ContextOverflowError(f"a text has {self._engine.ctx:,} tokens, as many as the context holds")
        loader, slots = self._engine.expert_loader, list(tokens)
        at_a_time = loader.most_tokens if loader else len(slots)
        if len(slots) <= at_a_time:
            return self._take(slots, tokens)
        parts = [slots[first : first + at_a_time] for first in range(0, len(slots), at_a_time)]
        return np.concatenate([self._take(part, tokens).copy() for part in parts])

    def _take(self, slots: list[int], tokens: dict[int, int]) -> NDArray[np.float32]:
        """Append a token to the texts in these slots."""
        self._ids[: len(slots)] = [tokens[slot] for slot in slots]
        self._batch.set_texts(slots, [self._positions[slot] for slot in slots])
        self._engine.replay(self._step)
        for slot in slots:
            self._positions[slot] += 1
        return self._logits[: len(slots)]
