"""The prefix cache: a prompt that begins like a text that was there before prefills only the rest.

Texts form a tree. One of them, a path of that tree, is in the engine's state, with the keys and values of all its ids. A
checkpoint lets the state go back to a position of a text that was there: in memory (`kept_states`), or on disk
(`state_store`). Where a prompt is cut into pieces shows in the last bits of its logits, so it is cut only where its marks
are, and at multiples of the engine's chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from qcli.drafts.drafted_steps import DraftedSteps, Drafts
from qcli.drafts.setting import OFF, Draft
from qcli.errors import QcliError
from qcli.host.memory import available_memory
from qcli.host.signals import interrupts_wait
from qcli.progress import Progress, part_of, reading
from qcli.runtime.checkpoint import NO_MARKS, Checkpoint, Marks
from qcli.runtime.history import common_length, extend, of_prompt
from qcli.runtime.kept_states import KeptStates
from qcli.streaming.budget import checkpoint_bytes
from qcli.streaming.pressure import FLOOR

if TYPE_CHECKING:
    from qcli.runtime.engine import Engine
    from qcli.runtime.sequences import Sequences
    from qcli.runtime.state_store import StateStore

T = TypeVar("T")


class PrefixCache:
    """An engine, the ids that its state has, and checkpoints of this text and of others."""

    def __init__(self, engine: Engine, store: StateStore | None = None, draft: Draft = OFF) -> None:
        """draft: whether tokens of answers are guessed ahead, where the model has steps of several."""
        self.engine, self.store = engine, store
        self.alone = True  # whether nobody else reads experts meanwhile
        streamed = engine.expert_loader is not None and draft.by is None  # a kind that was asked for is tried at once
        self._drafts = Drafts(draft if engine.most_tokens > 1 else OFF, streamed=streamed)
        self.kept = KeptStates(engine.state, checkpoint_bytes(engine.state))
        if engine.expert_loader:
            engine.expert_loader.give_up_first = self.kept.clear
        self.others: Sequences | None = None  # texts that are decoded together, or were, and are where they were left
        self.prefilled = 0  # ids that the last prefill did not find in the state
        self._logits: np.ndarray | None = None  # of the last id in the state, if they are known
        self._ids: list[int] = []  # whose keys and values the state has
        self._history: list[int] = []  # how each of them came there
        self.whole = True  # whether it has their recurrent states, too: not after an error in the midst of a step

    def share_with(self, others: Sequences | None) -> None:
        """What is in these slots can be gone on from, too; None: nothing is."""
        self.others, self.kept.elsewhere = others, tuple if others is None else others.rows

    def prefill(self, ids: Sequence[int], progress: Progress | None = None, marks: Marks = NO_MARKS) -> np.ndarray:
        """Bring the state to exactly these ids, keeping the longest prefix that is known; float32 [vocab] of the last."""
        ids = list(ids)
        start = first = self.rewind(ids, marks)
        self.prefilled = len(ids) - start
        for end in sorted({mark for mark in marks.positions if start < mark < len(ids)} | {len(ids)}):
            if end > first:
                told = part_of(progress, reading(self.prefilled), first - start, end - first, self.prefilled)
                self._append(ids[first:end], partial(self.engine.prefill, ids[first:end], told))
            if end in marks.positions:
                self.checkpoint(end in marks.on_disk)
            first = end
        assert self._logits is not None
        return self._logits

    @property
    def position(self) -> int:
        """Tokens of the text in the state."""
        return self.engine.position

    @property
    def text(self) -> tuple[list[int], list[int]]:
        """The ids of the text in the state, and how each of them came there."""
        return self._ids, self._history

    def drafted(self, ids: Sequence[int]) -> DraftedSteps:
        """What takes the tokens of an answer to a prompt of these ids, and guesses ahead."""
        return self._drafts.of(self, ids)

    def keep_answer(self, on_disk: bool) -> None:
        """Keep a checkpoint after an answer, unless an error has ended it."""
        if self.whole:
            self.checkpoint(on_disk)

    def logits_of_step(self) -> np.ndarray | None:
        """Those after the last token."""
        return self._logits

    def step(self, token: int) -> np.ndarray:
        """Add one token; float32 [vocab]."""
        self._append([token], partial(self.engine.step, token))
        assert self._logits is not None
        return self._logits

    @property
    def room(self) -> int:
        """How many tokens `steps` can take now."""
        most = self.engine.most_tokens
        if most > 1 and self.engine.programs.several_are_coming:
            return 1  # until their kernels are compiled
        return min(most, self.engine.ctx - self.engine.position)

    def steps(self, tokens: Sequence[int]) -> np.ndarray:
        """Add a token, and guesses of those that follow, which are gone unless `keep` says otherwise; float32 [tokens, vocab]."""
        return self._append([tokens[0]], partial(self.engine.steps, tokens))

    def draft(self, token: int, count: int) -> list[int]:
        """Up to `count` ids that the model's own head expects after a token that is about to be added."""
        return self.engine.draft(token, count)

    @property
    def has_head(self) -> bool:
        """Whether the model has a head of multi-token prediction."""
        return self.engine.draft_head is not None

    def keep(self, guess: int) -> None:
        """The next guess, this id, was right: it stays."""
        self._append([guess], self.engine.keep)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [T, vocab] of every position, from an empty state; the next prefill starts from an empty one, too."""
        self._leave(0)
        self._ids, self._history, self.whole = [], [], False
        return self.engine.logits(ids)

    def checkpoint(self, on_disk: bool = False) -> Checkpoint:
        """Keep a checkpoint of the text in the state in memory, and if it is to be so on the disk.

        Raises QcliError if an error has left the state in the midst of a step.
        """
        if not self.whole:
            raise QcliError("an error has ended the last answer, and nothing is known after it", "ask something first")
        history = tuple(self._history)
        known = next((c for c in self.kept.checkpoints if c.history == history), None)
        if known:
            return self._saved(known, on_disk)
        if available_memory() < FLOOR + self.engine.state.recurrent_bytes + self.engine.state.window_bytes:
            self.kept.clear()
        logits = None if self._logits is None else self._logits.copy()
        checkpoint = Checkpoint(tuple(self._ids), self.engine.state.recurrent_copy(), logits, history)
        self.kept.add(checkpoint)
        return self._saved(checkpoint, on_disk)

    def adopt(self, read: Callable[[], Checkpoint]) -> None:
        """Bring the state to a text whose keys and values `read` writes into it, and whose checkpoint it gives."""
        self._leave(0)
        self._stay_at(0, whole=False)
        checkpoint = read()
        self.engine.state.rewind(checkpoint.position, checkpoint.recurrent)
        self._is_at(checkpoint)
        self.kept.add(checkpoint)

    def close(self) -> None:
        """Have what is to be kept written, and close the engine. Raises OutputError, see Engine.close."""
        if self.store:
            self.store.close()
        self.engine.close()

    def _saved(self, checkpoint: Checkpoint, on_disk: bool) -> Checkpoint:
        if on_disk and self.store and checkpoint.logits is not None:
            self.store.save(checkpoint, self.engine.state.rows)
        return checkpoint

    def restore(self, checkpoint: Checkpoint, progress: Progress | None = None) -> None:
        """Bring the state to a checkpoint of this engine; what of it was given up meanwhile is prefilled again."""
        if all(kept is not checkpoint for kept in self.kept.checkpoints):
            self.kept.checkpoints.append(checkpoint)
        if not self._go_to([*checkpoint.ids], checkpoint):
            self.prefill(checkpoint.ids, progress)

    def _append(self, ids: list[int], compute: Callable[[], T]) -> T:
        """Add ids. Ctrl-C may leave only the first of them in the state; after an error nobody knows what is there."""
        before = self.engine.position
        try:
            return compute()
        except Exception:
            self.whole = not self.engine.state.recurrent_bytes
            raise
        finally:
            with interrupts_wait():
                added = ids[: self.engine.position - before]
                self._ids += added
                extend(self._history, added, self.engine.chunk, step=len(ids) == 1)
                self._logits = self.engine.last_logits

    def rewind(self, ids: list[int], marks: Marks = NO_MARKS) -> int:
        """Bring the state to the longest prefix of ids that it, a checkpoint or the disk has; the prefix's length."""
        while True:
            in_place, on_disk = self._in_place(ids, marks), self.store.longest(ids) if self.store else 0
            kept = self.kept.longest(ids, marks.positions if marks.alone else None)
            in_memory = kept.position if kept else 0
            if not marks.alone and self._bring_back(ids, marks, max(in_place, in_memory, on_disk)):
                return len(self._ids)
            if in_place >= max(in_memory, on_disk):
                self._go_back_to(in_place)
                return in_place
            if kept and in_memory >= on_disk:
                if self._go_to(list(kept.ids), kept):
                    return in_memory
            elif self._go_to(ids[:on_disk], None):
                return on_disk

    def _in_place(self, ids: list[int], marks: Marks) -> int:
        """How many of the ids can stay in the state: a recurrent state has to be left as it is, or emptied."""
        if marks.alone:
            return 0
        there = common_length(self._ids, ids)
        if self.whole and there == len(self._ids) and (there < len(ids) or self._logits is not None):
            return there
        return max(filter(self.engine.state.can_go_back, self._cuts(there, len(ids), marks)), default=0)

    def _cuts(self, there: int, size: int, marks: Marks) -> set[int]:
        """Where a prompt of that size may go on in the midst of a text that has so many of its ids."""
        if self.engine.state.recurrent_bytes:
            return set()
        there, chunk = min(there, size - 1), self.engine.chunk
        return {there // chunk * chunk, *(mark for mark in marks.positions if mark <= there)}

    def _bring_back(self, ids: list[int], marks: Marks, longer_than: int) -> bool:
        """Bring the state to what ids begin with of a text that is, or was, decoded together with others."""
        best, position = None, longer_than
        known = {} if self.others is None else self.others.known
        alike = of_prompt(ids, self.engine.chunk, marks.positions) if known else []
        for slot, text in known.items():
            is_whole = text.position < len(ids) and text.ids == ids[: text.position]
            cuts = set() if self.engine.state.window_bytes else self._cuts(text.is_in(alike), len(ids), marks)
            end = text.position if is_whole else max(cuts, default=0)
            if end > position:
                best, position = slot, end
        if self.others is None or best is None:
            return False
        there = common_length(self._history, history := known[best].history[:position])
        self._leave(there)
        self._stay_at(there, whole=False)
        self.others.bring_back(best, position, there)
        self._ids, self._history, self.whole = ids[:position], history, True
        self.engine.last_logits = None
        return True

    def _go_back_to(self, position: int) -> None:
        """Forget what follows a position of the text in the state."""
        if self.whole and position == len(self._ids):
            return
        self._leave(position)
        if position:
            self.engine.state.rewind(position, ())
        else:
            self.engine.reset()
        self._stay_at(position, whole=True)

    def _go_to(self, ids: list[int], kept: Checkpoint | None) -> bool:
        """Bring the state to these ids by a checkpoint in memory, or by that on disk; whether it could be done."""
        there = min(
            common_length(self._ids, ids), common_length(self._history, kept.history if kept else self._history)
        )
        if kept:
            self.kept.use(kept)
        self._leave(there)
        self._stay_at(there, whole=False)
        if kept:
            reached = self.kept.put_back(kept, there)
        else:
            assert self.store
            kept = self.store.read(ids, self.engine.state.rows, self._history)
            reached = kept is not None
            if kept:
                self.engine.state.rewind(kept.position, kept.recurrent)
                self.kept.add(kept)
        if reached and kept:
            self._is_at(kept)
        return reached

    def _stay_at(self, position: int, whole: bool) -> None:
        """Note that the text in the state ends there, and whether the recurrent states are those of that position."""
        self._ids, self._history, self._logits, self.whole = (
            self._ids[:position],
            self._history[:position],
            None,
            whole,
        )

    def _is_at(self, checkpoint: Checkpoint) -> None:
        """Note that the text in the state is that of a checkpoint."""
        self._ids, self._history = [*checkpoint.ids], [*checkpoint.history]
        self._logits, self.whole = checkpoint.logits, True

    def _leave(self, position: int) -> None:
        """Before the rows behind a position are overwritten: have those kept that checkpoints need."""
        if self.store:
            self.store.wait()
        self.kept.leave(self._history, position)
