"""Several answers at a time, each in a slot of its own: all that can go on take their next step together.

An answer is a generator, as it is alone, but its steps wait: it yields pieces without text until all others have come as far,
or have ended. Prompts are read one after the other in the engine's own state, where the prefix cache knows what was there.
What an answer says does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
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
    alone = False

    def __init__(self, cache: PrefixCache, sequences: Sequences, between: Progress) -> None:
        """between: told of progress, too, while the prompt is read: so that others may go on."""
        self.engine, self.prefilled = cache.engine, 0
        self._cache, self._sequences, self._between = cache, sequences, between
        self._slot: int | None = None
        self._logits: np.ndarray | None = None
        self.wanted: int | None = None  # the token that it would take next
        self.ended = False  # whether the answer is over

    @property
    def position(self) -> int:
        """Tokens of the text."""
        return self.engine.position if self._slot is None else self._sequences.position(self._slot)

    @property
    def has_slot(self) -> bool:
        """Whether its prompt is read."""
        return self._slot is not None

    @property
    def slot(self) -> int:
        """Where the text is."""
        assert self._slot is not None
        return self._slot

    def prefill(self, ids: Sequence[int], progress: Progress | None = None, marks: Marks = NO_MARKS) -> np.ndarray:
        """Read a prompt, and take a slot; float32 [vocab] after its last id."""

        def told(stage: str, fraction: float) -> None:
            if progress:
                progress(stage, fraction)
            self._between(stage, fraction)

        logits = self._cache.prefill(ids, told, marks)
        self.prefilled, self._slot = self._cache.prefilled, self._sequences.join(*self._cache.text)
        return logits

    def step(self, token: int) -> None:
        """Say what token comes next."""
        self.wanted, self._logits = token, None

    def take(self, logits: np.ndarray) -> None:
        """The step was taken."""
        self.wanted, self._logits = None, logits

    def keep_logits(self) -> None:
        """Another step is about to overwrite the logits: keep those that nobody has drawn from yet."""
        if self._logits is not None:
            self._logits = self._logits.copy()

    def logits_of_step(self) -> np.ndarray | None:
        """Those after the last token, once the step was taken."""
        return self._logits

    def drafted(self, ids: Sequence[int]) -> TextInSlot:
        """What takes the tokens of its answer: nothing is guessed here."""
        return self

    def keep_answer(self, on_disk: bool) -> None:
        """The text stays in its slot, anyway, until another needs that."""

    def leave(self, whole: bool) -> None:
        """Give the slot back; whole: the text may be gone on with."""
        if self._slot is not None:
            self._sequences.leave(self._slot, whole)
            self._slot = None


class Together:
    """Answers that are given together, by one thread: `pieces` of each that can go on, then a `step` of all, and so on."""

    def __init__(self, cache: PrefixCache, most: int) -> None:
        """most: answers at a time. Raises QcliError if there is no room for the experts of several texts."""
        self._cache, self._sequences = cache, Sequences(cache.engine, most)
        cache.share_with(self._sequences)
        self._texts: dict[int, TextInSlot] = {}  # by the id of the answer
        self._pieces: dict[int, Pieces] = {}
        self._between: Progress = lambda stage, fraction: None

    def have_told(self, between: Progress, seconds: float) -> None:
        """Have somebody told how far the prompt is that is being read, about every so many seconds: others may go on then."""
        self._between, self._cache.engine.tell_every = between, seconds

    @property
    def most(self) -> int:
        """Answers at a time."""
        return self._sequences.most

    @property
    def may_step(self) -> bool:
        """Whether answers can take a step now, if a prompt is being read."""
        loader = self._cache.engine.expert_loader
        return loader is None or not loader.within_layer

    @property
    def is_full(self) -> bool:
        """Whether no other answer can begin."""
        return len(self._texts) == self.most

    def text(self) -> TextInSlot:
        """What an answer that is about to begin reads its prompt by. Raises QcliError if none can begin."""
        if self.is_full:
            raise QcliError(f"{len(self._texts)} answers are given at a time", "wait until one of them ends")
        return TextInSlot(self._cache, self._sequences, self._between)

    def begin(self, answer: Pieces, pieces: Pieces, text: TextInSlot) -> None:
        """An answer begins, whose pieces come of `text`; from now on they are read here."""
        self._pieces[id(answer)], self._texts[id(answer)] = pieces, text

    def pieces(self, answer: Pieces) -> Iterator[str]:
        """The pieces of an answer until it waits for a step; after its last it `is_over`. Raises what the answer raises.

        The first call has its prompt read: meanwhile, where progress is told, others may go on and take steps, but none may
        have its own prompt read.
        """
        text = self._texts[id(answer)]
        if text.wanted is None:
            text.ended = True
            for piece in self._pieces[id(answer)]:
                if not piece:
                    text.ended = False
                    return
                yield piece

    def has_begun(self, answer: Pieces) -> bool:
        """Whether its prompt is read."""
        return self._texts[id(answer)].has_slot

    def is_over(self, answer: Pieces) -> bool:
        """Whether nothing more comes of it."""
        return self._texts[id(answer)].ended

    def end(self, answer: Pieces, whole: bool = True) -> None:
        """Let an answer go, whose slot is free then; whole: no error has come in the midst of its step."""
        pieces, text = self._pieces.pop(id(answer)), self._texts.pop(id(answer))
        try:
            pieces.close()
            answer.close()
        finally:
            text.leave(whole)

    def step(self) -> None:
        """Have all answers that wait take their next token."""
        tokens = {text.slot: text.wanted for text in self._texts.values() if text.wanted is not None}
        if tokens:
            for text in self._texts.values():
                text.keep_logits()
            rows = self._sequences.step(tokens)
            waiting = {text.slot: text for text in self._texts.values() if text.wanted is not None}
            for slot, row in zip(tokens, rows, strict=True):
                waiting[slot].take(row)
