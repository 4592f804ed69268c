"""Several answers at a time, each in a slot of its own: all that can go on take their next step together.

An answer is a generator, as it is alone, but its steps wait: it yields pieces without text until all others have come as far,
or have ended. Prompts are read one after the other in the engine's own state, where the prefix cache knows what was there.
What an answer says does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from qcli.errors import QcliError
from qcli.progress import Progress
from qcli.runtime.checkpoint import NO_MARKS, Marks
from qcli.runtime.sequences import Sequences

if TYPE_CHECKING:
    import numpy as np

    from qcli.runtime.prefix_cache import PrefixCache

Pieces = Generator[str, None, None]


class TextInSlot:
    """Stands where the prefix cache stands for an answer that is alone: its text is in a slot once its prompt is read."""

    guessed = right = 0

    def __init__(self, cache: PrefixCache, sequences: Sequences) -> None:
        self.engine, self.prefilled = cache.engine, 0
        self._cache, self._sequences = cache, sequences
        self._slot: int | None = None
        self._logits: np.ndarray | None = None
        self.wanted: int | None = None  # the token that it would take next

    @property
    def position(self) -> int:
        """Tokens of the text."""
        return self.engine.position if self._slot is None else self._sequences.position(self._slot)

    @property
    def slot(self) -> int:
        """Where the text is."""
        assert self._slot is not None
        return self._slot

    def prefill(self, ids: Sequence[int], progress: Progress | None = None, marks: Marks = NO_MARKS) -> np.ndarray:
        """Read a prompt, and take a slot; float32 [vocab] after its last id."""
        logits = self._cache.prefill(ids, progress, marks)
        self.prefilled, self._slot = self._cache.prefilled, self._sequences.join()
        return logits

    def step(self, token: int) -> None:
        """Say what token comes next."""
        self.wanted, self._logits = token, None

    def take(self, logits: np.ndarray) -> None:
        """The step was taken."""
        self.wanted, self._logits = None, logits

    def logits_of_step(self) -> np.ndarray | None:
        """Those after the last token, once the step was taken."""
        return self._logits

    def drafted(self, ids: Sequence[int]) -> TextInSlot:
        """What takes the tokens of its answer: nothing is guessed here."""
        return self

    def keep_answer(self, on_disk: bool) -> None:
        """Nothing is kept after an answer: its text is not in the engine's own state."""

    def leave(self) -> None:
        """Give the slot back."""
        if self._slot is not None:
            self._sequences.leave(self._slot)
            self._slot = None


class Together:
    """Answers that are given together, by one thread: `begin` them, then `go_on` until none is left."""

    def __init__(self, cache: PrefixCache, most: int) -> None:
        """most: answers at a time. Raises QcliError if the model decodes one text at a time."""
        self._cache, self._sequences = cache, Sequences(cache.engine, most)
        self._running: dict[int, tuple[Pieces, TextInSlot]] = {}
        self._begun = 0

    @property
    def is_full(self) -> bool:
        """Whether no other answer can begin."""
        return len(self._running) == self._sequences.most

    def text(self) -> TextInSlot:
        """What an answer that is about to begin reads its prompt by."""
        return TextInSlot(self._cache, self._sequences)

    def begin(self, pieces: Pieces, text: TextInSlot) -> int:
        """Have an answer begin, whose pieces come of `text`; its number."""
        self._begun += 1
        self._running[self._begun] = pieces, text
        return self._begun

    def end(self, number: int) -> None:
        """End an answer early, or one that is over."""
        pieces, text = self._running.pop(number)
        with suppress(QcliError):
            pieces.close()
        text.leave()

    def go_on(self) -> Iterator[tuple[int, str | QcliError | None]]:
        """Have every answer go on by a step: (number, piece) as they come, (number, None) at the end of an answer, or the
        error that ended it."""
        for number, (pieces, text) in list(self._running.items()):
            if number in self._running and text.wanted is None:
                yield from self._pieces(number, pieces)
        waiting = {text.slot: text for _, text in self._running.values() if text.wanted is not None}
        if waiting:
            rows = self._sequences.step(
                {slot: text.wanted for slot, text in waiting.items() if text.wanted is not None}
            )
            for text, row in zip(waiting.values(), rows, strict=True):
                text.take(row)

    def _pieces(self, number: int, pieces: Pieces) -> Iterator[tuple[int, str | QcliError | None]]:
        """The pieces of an answer until it waits or ends."""
        try:
            for piece in pieces:
                if not piece:
                    return
                yield number, piece
                if number not in self._running:  # ended meanwhile
                    return
        except QcliError as problem:
            self.end(number)
            yield number, problem
            return
        self.end(number)
        yield number, None
