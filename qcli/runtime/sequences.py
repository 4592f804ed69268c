"""Several texts that are decoded together: a step takes a token of each, and reads weights once for all.

What a text gets is, to the bit, what it would get alone, whoever the others are. Each begins as the text in the engine's own
state, where its prompt was read; it goes on in a slot, while another prompt is read there: a step may be taken in the midst of
that, too, as it shares no memory with it; but not where experts are streamed, of which a prompt relies on those in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ContextOverflowError, QcliError
from qcli.runtime.history import extend
from quant.batch import Batch
from quant.plan import aligned

if TYPE_CHECKING:
    from qcli.runtime.engine import Engine


@dataclass(eq=False)
class Text:
    """The text in a slot."""

    position: int  # tokens of it
    ids: list[int] | None  # None: nobody has told them
    history: list[int]  # how each of them came there: see qcli.runtime.history

    def append(self, id: int, chunk: int) -> None:
        """A step has added a token."""
        self.position += 1
        if self.ids is not None:
            self.ids.append(id)
            extend(self.history, [id], chunk, step=True)

    def begins(self, ids: Sequence[int]) -> bool:
        """Whether these ids begin with it, and there are more of them."""
        return self.ids is not None and self.position < len(ids) and self.ids == list(ids[: self.position])


class Sequences:
    """Slots for up to `most` texts of an engine's model, for the one thread that uses the engine.

    A text that is over stays in its slot until that is needed, the one that was left first first: it can be gone on with.
    """

    def __init__(self, engine: Engine, most: int) -> None:
        """Allocate the slots, and compile the step. Raises QcliError if the model has no steps of several tokens."""
        if engine.most_tokens == 1:
            raise QcliError("this model decodes one text at a time", "read one answer after the other")
        self._engine, self.most = engine, most
        self._slots, self._batch = engine.state.slots(most), Batch(texts=most)
        self._texts = dict[int, Text]()  # of the slots that are taken
        self._left = dict[int, Text]()  # of others; the one that was left last comes last
        self._ids: NDArray[np.int64] = aligned(most, np.int64)
        self._step, _, self._logits = engine.programs.stepping(self._ids, most, self._batch, self._slots)

    def __len__(self) -> int:
        return len(self._texts)

    def join(self, ids: Sequence[int] | None = None, history: Sequence[int] = ()) -> int:
        """Have the text in the engine's state go on in a slot; which one. Raises QcliError if all are taken.

        ids, history: of the text, where it may be gone on with after it has left.
        """
        free = [slot for slot in range(self.most) if slot not in self._texts]
        if not free:
            raise QcliError(f"{self.most} texts are decoded together already", "wait until one of them ends")
        slot = next((slot for slot in free if slot not in self._left), next(iter(self._left), free[0]))
        self._left.pop(slot, None)
        self._engine.state.copy_to(self._slots, slot)
        self._texts[slot] = Text(self._engine.position, None if ids is None else [*ids], [*history])
        return slot

    def leave(self, slot: int, whole: bool = True) -> None:
        """Give a slot back; whole: its text may be gone on with."""
        text = self._texts.pop(slot)
        if whole:
            self._left[slot] = text

    def position(self, slot: int) -> int:
        """Tokens of the text in a slot."""
        return self._texts[slot].position

    def longest(self, ids: Sequence[int]) -> int | None:
        """The slot of the longest text that was left and that these ids begin with, or None."""
        found = [slot for slot, text in self._left.items() if text.begins(ids)]
        return max(found, key=lambda slot: self._left[slot].position, default=None)

    def left(self, slot: int) -> Text:
        """A text that was left."""
        return self._left[slot]

    def bring_back(self, slot: int) -> None:
        """Have a text that was left go on in the engine's state; it stays in its slot, too."""
        self._engine.state.copy_from(self._slots, slot, self._left[slot].position)
        self._left[slot] = self._left.pop(slot)

    def step(self, tokens: dict[int, int]) -> NDArray[np.float32]:
        """Append a token to each of some texts, given by slot; the logits after each, float32 [texts, vocab], in their order.

        They are overwritten by the next call. Raises ContextOverflowError if a text is as long as the context.
        """
        if max(self._texts[slot].position for slot in tokens) >= self._engine.ctx:
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
        self._batch.set_texts(slots, [self._texts[slot].position for slot in slots])
        self._engine.replay(self._step)
        for slot in slots:
            self._texts[slot].append(tokens[slot], self._engine.chunk)
        return self._logits[: len(slots)]
