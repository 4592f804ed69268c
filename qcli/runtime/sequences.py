"""Several texts that are decoded together: a step takes a token of each, and reads weights once for all.

What a text gets is, to the bit, what it would get alone, whoever the others are. Each begins as the text in the engine's own
state, where its prompt was read; it goes on in a slot, while another prompt is read there: a step may be taken in the midst of
that, too, as it shares no memory with it. Where experts are streamed, the step reads those of all its texts, each once; of a
prompt, it may be taken between two layers, as one that is being computed relies on experts in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ContextOverflowError, QcliError
from qcli.host.signals import interrupts_wait
from qcli.runtime.history import common_length, extend
from qcli.runtime.places import text_bytes
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

    def is_in(self, history: Sequence[int]) -> int:
        """How many of its tokens another text begins with, computed alike."""
        return common_length(self.history, history)

    def append(self, id: int, chunk: int) -> None:
        """A step has added a token."""
        self.position += 1
        if self.ids is not None:
            self.ids.append(id)
            extend(self.history, [id], chunk, step=True)


@dataclass(frozen=True)
class RowsInSlot:
    """The keys and values of a text in a slot, from its beginning on: they can be written where the engine's state has them."""

    sequences: Sequences
    slot: int
    first = 0

    def put_back(self, first: int, end: int) -> None:
        """Write those of positions from `first` to `end`."""
        self.sequences.copy_rows(self.slot, first, end)


class Sequences:
    """Slots for up to `most` texts of an engine's model, for the one thread that uses the engine.

    A text that is over stays in its slot until that is needed, the one that was left first first: it can be gone on with.
    """

    def __init__(self, engine: Engine, most: int) -> None:
        """Allocate the slots, and compile the step. Raises QcliError if there is no room for the experts of two tokens."""
        if engine.most_tokens == 1:
            message = "there is no room for the experts of several texts at a time"
            raise QcliError(message, ("read one answer after the other", "give a larger --ram"))
        self._engine, self.most = engine, most
        if loader := engine.expert_loader:
            loader.give_up(most * text_bytes(engine.state, engine.vocab_size) - engine.spare_bytes)
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
        slot = self._best_of(free, history)
        there = self._left.pop(slot).is_in(history) if slot in self._left else 0
        self._engine.state.copy_to(self._slots, slot, there)
        self._texts[slot] = Text(self._engine.position, None if ids is None else [*ids], [*history])
        return slot

    def _best_of(self, free: list[int], history: Sequence[int]) -> int:
        """The slot of a text that the new one goes on from, if there is one, else one that nothing is in, else the oldest's."""
        for slot, text in self._left.items():
            if text.history and text.is_in(history) == len(text.history):
                return slot
        return next((slot for slot in free if slot not in self._left), next(iter(self._left), free[0]))

    def leave(self, slot: int, whole: bool = True) -> None:
        """Give a slot back; whole: its text may be gone on with."""
        text = self._texts.pop(slot)
        if whole:
            self._left[slot] = text

    def position(self, slot: int) -> int:
        """Tokens of the text in a slot."""
        return self._texts[slot].position

    @property
    def known(self) -> dict[int, Text]:
        """The texts whose ids are known, by slot: those that are there, and those that were left."""
        return {slot: text for slot, text in (self._texts | self._left).items() if text.ids is not None}

    def rows(self) -> Iterator[tuple[Sequence[int], RowsInSlot]]:
        """The history of each of them, and its keys and values."""
        for slot, text in self.known.items():
            yield text.history, RowsInSlot(self, slot)

    def copy_rows(self, slot: int, first: int, end: int) -> None:
        """Write the keys and values of some positions of a slot's text where the engine's state has them."""
        self._engine.state.copy_rows_from(self._slots, slot, first, end)

    def bring_back(self, slot: int, position: int, first: int) -> None:
        """Have a text, up to a position, go on in the engine's state, which has its rows below `first`; it stays in its slot."""
        self._engine.state.copy_from(self._slots, slot, position, first)
        if slot in self._left:
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
        with interrupts_wait():  # or the states would have seen a token that the texts do not have
            self._engine.replay(self._step)
            for slot in slots:
                self._texts[slot].append(tokens[slot], self._engine.chunk)
        return self._logits[: len(slots)]
