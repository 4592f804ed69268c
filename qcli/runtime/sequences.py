"""Several texts that are decoded together: a step takes a token of each, and reads weights once for all.

What a text gets is, to the bit, what it would get alone, whoever the others are. Each begins as the text in the engine's own
state, where its prompt was read; it goes on in a slot, while another prompt is read there: a step may be taken in the midst of
that, too, as it shares no memory with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ContextOverflowError, QcliError
from quant.batch import Batch
from quant.plan import Plan, aligned

if TYPE_CHECKING:
    from qcli.runtime.engine import Engine


class Sequences:
    """Slots for up to `most` texts of an engine's model, for the one thread that uses the engine."""

    def __init__(self, engine: Engine, most: int) -> None:
        """Allocate the slots, and compile the step. Raises QcliError if the model has no steps of several tokens."""
        if engine.most_tokens == 1:
            raise QcliError("this model decodes one text at a time", "read one answer after the other")
        self._engine, self.most = engine, most
        self._slots, batch = engine.state.slots(most), Batch(texts=most)
        plan = Plan(most, engine.threads, batch, stepwise=True, slots=self._slots)
        self._batch, self._positions = batch, dict[int, int]()  # of the slots that are taken
        self._ids: NDArray[np.int64] = aligned(most, np.int64)
        self._step, self._logits = engine.programs.stepping(plan, self._ids)

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
        slots = list(tokens)
        positions = [self._positions[slot] for slot in slots]
        if max(positions) >= self._engine.ctx:
            raise ContextOverflowError(f"a text has {self._engine.ctx:,} tokens, as many as the context holds")
        self._ids[: len(slots)] = list(tokens.values())
        self._batch.set_texts(slots, positions)
        self._engine.replay(self._step)
        for slot in slots:
            self._positions[slot] += 1
        return self._logits[: len(slots)]
