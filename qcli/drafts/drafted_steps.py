"""Decode steps with guesses: in place of a step for each token, one for several, of which those that come true stay."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

import numpy as np

from qcli.drafts.controller import Controller, Offer
from qcli.drafts.estimates import Chances
from qcli.drafts.lookup import PromptLookup
from qcli.drafts.setting import MOST, Draft

_BY_HEAD = 0.6  # share of guesses of a model's own head that come true, as long as nothing is known
_EXPECTED = (0.55, 0.7, 0.85, 0.9)  # likewise of those from the text, by how many tokens before them are alike


class Steps(Protocol):
    """What takes tokens: a prefix cache."""

    def step(self, token: int) -> np.ndarray | None:
        """Add one token; float32 [vocab], or None if others come first."""

    def steps(self, tokens: Sequence[int]) -> np.ndarray:
        """Add a token, and guesses, which are gone unless `keep` says otherwise; float32 [tokens, vocab]."""

    def keep(self, guess: int) -> None:
        """The next guess came true: this one."""

    def draft(self, token: int, count: int) -> list[int]:
        """Up to `count` ids that the model's own head expects after a token, which is added next."""

    @property
    def has_head(self) -> bool:
        """Whether it has one."""

    @property
    def room(self) -> int:
        """How many tokens `steps` can take now."""


class Drafts:
    """Whether an engine's answers are drafted, and what was learned about it."""

    def __init__(self, draft: Draft, *, streamed: bool = False) -> None:
        """streamed: whether experts are read from the disk."""
        self._draft, self._controller = draft, Controller(MOST, streamed=streamed)

    def of(self, steps: Steps, prompt: Sequence[int]) -> DraftedSteps:
        """What takes the tokens of the next answer, which follows a prompt."""
        return DraftedSteps(steps, prompt, self._draft, self._controller)


class DraftedSteps:
    """Takes the tokens of one answer, one after the other, and guesses ahead; `guessed` and `right` count guesses."""

    def __init__(self, steps: Steps, prompt: Sequence[int], draft: Draft, controller: Controller) -> None:
        self._steps, self._draft, self._controller = steps, draft, controller
        self._by_text, self._by_head = draft.on and draft.by != "mtp", draft.asks_head and steps.has_head
        self._prompt: Sequence[int] | None = prompt
        self._lookup = PromptLookup()
        self._guesses: list[int] = []  # of the last step, those that have not come true yet
        self._row, self._rows = 0, np.empty(0, np.float32)
        self._chances: Chances | None = None
        self._guess_s = 0.0  # that the last guesses took, if the model made them itself
        self.guessed = self.right = 0

    def step(self, token: int) -> np.ndarray | None:
        """Add a token; the logits after it, float32 [vocab], or None if others come first."""
        if self._by_text:
            self._hear_of(token)
        if self._guesses:
            right = self._guesses.pop(0) == token
            if self._chances:
                self._chances.note(right)
            if right:
                self.right += 1
                self._controller.came_true()
                self._row += 1
                self._steps.keep(token)
                row: np.ndarray = self._rows[self._row]
                return row
        self._chances, self._guess_s = None, 0.0
        self._guesses = self._guess(token) if self._draft.on else []
        if self._guesses:
            self._guesses = self._guesses[: self._steps.room - 1]  # of which guessing itself may have left less
            self.guessed += len(self._guesses)
        began = perf_counter()
        if self._guesses:
            self._row, self._rows = 0, self._steps.steps([token, *self._guesses])
            logits: np.ndarray | None = self._rows[0]
        else:
            logits = self._steps.step(token)
        self._controller.took(len(self._guesses), perf_counter() - began, self._guess_s)
        return logits

    def _hear_of(self, token: int) -> None:
        if self._prompt is not None:
            self._lookup.extend(self._prompt)
            self._prompt = None
        self._lookup.extend([token])

    def _guess(self, token: int) -> list[int]:
        """What may follow a token, as far as it pays to guess: from the text itself, else by the model's own head."""
        found = self._lookup.guess(MOST) if self._by_text else None
        if self._draft.at_a_time is None and not found and self._controller.rests(self._by_head):
            return []
        most = self._steps.room - 1
        if most < 1:
            return []
        if self._draft.at_a_time is not None:
            count = min(self._draft.at_a_time, most)
            return found.ids[:count] if found else self._steps.draft(token, count)
        offers = []
        if found:
            kind = min(found.alike.bit_length() - 2, len(_EXPECTED) - 1)
            offers.append(Offer(self._controller.chances(kind, _EXPECTED[kind]), min(most, len(found.ids))))
        if self._by_head:
            offers.append(Offer(self._controller.chances("head", _BY_HEAD), most, by_head=True))
        chosen = self._controller.choose(offers)
        if not chosen:
            return []
        offer, count = chosen
        self._chances = offer.chances
        return found.ids[:count] if found and not offer.by_head else self._ask_head(token, count)

    def _ask_head(self, token: int, count: int) -> list[int]:
        began = perf_counter()
        ids = self._steps.draft(token, count)
        self._guess_s = perf_counter() - began
        return ids
