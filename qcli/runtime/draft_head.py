"""Guesses of what comes next, by a model's head of multi-token prediction: they never change a text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcli.layers.mtp import MtpHead, mtp_of
from qcli.layers.state import State
from qcli.models import Model
from qcli.runtime.program import Program
from qcli.runtime.programs import Programs, compiled
from quant.batch import Batch
from quant.plan import Activation, Plan, aligned

if TYPE_CHECKING:
    from quant.kernels.observer import InputObserver

Replay = Callable[[Program], None]


class DraftHead:
    """A head's programs, on the state of its model; they are compiled when the first guess is asked for.

    It sees a text with one token's delay (see HiddenRows). What it has guessed, and keys and values of that, are written
    over when the text goes on.
    """

    def __init__(
        self, head: MtpHead, state: State, programs: Programs, threads: int, observer: InputObserver | None
    ) -> None:
        """programs: the model's, of which the one of prompts lends its memory; observer: sees the text at once."""
        self._head, self._state, self._threads = head, state, threads
        self._programs, self._observer = programs, observer
        self._rows = state.hidden_rows(max(programs.chunk, state.most_tokens) + 1, head.columns)
        self._batch = Batch()
        self._own = Activation(1, head.columns)  # the head's row after its norm, of the last guess
        self._own.read("f32")  # by `_next`, from whichever program has guessed before
        self._guess: NDArray[np.int64] = aligned(1, np.int64)
        if programs.expert_loader:  # which is to know of the head's experts before they are given slots
            head.trunk(self._stepwise(1), self._own, self._guess)

    @classmethod
    def of(
        cls, model: Model, state: State, programs: Programs, threads: int, observer: InputObserver | None
    ) -> DraftHead | None:
        """That of a model; None if it has no head."""
        head = mtp_of(model)
        return cls(head, state, programs, threads, observer) if head else None

    def draft(self, token: int, count: int, replay: Replay) -> list[int]:
        """At most `count` ids that are likely to come after a token that comes next; fewer at the end of the context."""
        rows = self._rows
        count = min(count, self._state.ctx - self._state.position - 1)
        if count < 1 or not rows.count:
            return []
        if rows.count > self._programs.most_tokens:
            self.catch_up(replay)
        rows.ids[rows.count - 1] = token
        self._see(self._few[0], rows.count, replay)
        rows.keep_last()
        rows.seen_with = token
        guesses = [self._best(self._first, replay)]
        while len(guesses) < count:
            self._guess[0] = guesses[-1]
            self._batch.set(1, rows.position + len(guesses))
            guesses.append(self._best(self._next, replay))
        return guesses

    def append(self, program: Program, first: int, count: int, replay: Replay) -> None:
        """Of the tokens that a program of the model took last, `count` from `first` on were appended to the text."""
        ids, rows = self._programs.ids, self._programs.before_head[program]
        if count == 1:
            self._rows.append_one(ids.item(first), rows[first])
        else:
            self._rows.append(ids[first : first + count], rows[first : first + count])
        if self._observer:
            self.catch_up(replay)

    def lacks_room(self, tokens: int) -> bool:
        """Whether it has to catch up before so many tokens are appended."""
        return self._rows.count + tokens > self._rows.most

    def catch_up(self, replay: Replay) -> None:
        """Have the head see the text but for its last token, whose row waits for the id that comes next."""
        if (count := self._rows.count - 1) > 0:
            few = count <= self._programs.most_tokens and not self._observer
            self._see(self._few[0] if few else self._many, count, replay)
            self._rows.keep_last()

    def _see(self, program: Program, count: int, replay: Replay) -> None:
        self._batch.set(count, self._rows.position)
        replay(program)

    def _best(self, program: tuple[Program, NDArray[np.float32]], replay: Replay) -> int:
        replay(program[0])
        return int(np.argmax(program[1]))

    def _stepwise(self, tokens: int) -> Plan:
        """An empty plan of the head's layer for a few tokens."""
        plan = Plan(tokens, self._threads, self._batch, self._programs.expert_loader, stepwise=True)
        self._programs.begin_step(plan, whole=False)
        return plan

    @cached_property
    def _few(self) -> tuple[Program, Activation]:
        """Sees a few rows; its own before the norm."""
        plan = self._stepwise(self._state.most_tokens)
        x = self._head.trunk(plan, self._head.normed(plan, self._rows.activation), self._rows.ids)
        return compiled(plan), x

    @cached_property
    def _many(self) -> Program:
        """Sees a chunk of a prompt."""
        plan = Plan(self._programs.chunk, self._threads, self._batch, self._programs.expert_loader, self._observer)
        plan.share(self._programs.prompt.plan)
        self._head.trunk(plan, self._head.normed(plan, self._rows.activation), self._rows.ids)
        return compiled(plan)

    @cached_property
    def _first(self) -> tuple[Program, NDArray[np.float32]]:
        """Guesses after the last row that `_few` has seen: logits."""
        plan = Plan(1, self._threads, self._batch)
        logits = self._head.head(plan, self._few[1], self._own, self._head.guessed)
        return compiled(plan), logits.values

    @cached_property
    def _next(self) -> tuple[Program, NDArray[np.float32]]:
        """Guesses after a guess: logits."""
        plan = self._stepwise(1)
        x = self._head.trunk(plan, self._own, self._guess)
        logits = self._head.head(plan, x, self._own, self._head.guessed)
        return compiled(plan), logits.values
