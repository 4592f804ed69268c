"""A model of which only the time matters: what its steps take is given by a function, and what it guesses by another.

The clock is the simulation's own, so that a controller's decisions can be compared with those of fixed numbers of guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qcli.drafts import drafted_steps
from qcli.drafts.drafted_steps import Drafts
from qcli.drafts.setting import Draft

_ROWS = np.zeros((9, 1), np.float32)


@dataclass
class Simulated:
    """Stands where a prefix cache does; `now`: seconds that its steps have taken so far."""

    text: Sequence[int]
    cost: Callable[[int, int], float]  # seconds of a step of so many tokens, at a token of the text
    right: Callable[[int], bool] | None = None  # whether the head's guess of the token at a place is right
    head: tuple[float, float] = (0.0, 0.0)  # seconds of its first guess, and of each that follows
    room: int = 8
    now: float = 0.0
    at: int = 0  # tokens taken

    @property
    def has_head(self) -> bool:
        return self.right is not None

    def step(self, token: int) -> np.ndarray:
        self.now += self.cost(1, self.at)
        self.at += 1
        return _ROWS[0]

    def steps(self, tokens: Sequence[int]) -> np.ndarray:
        self.now += self.cost(len(tokens), self.at)
        self.at += 1
        return _ROWS[: len(tokens)]

    def keep(self, guess: int) -> None:
        self.at += 1

    def draft(self, token: int, count: int) -> list[int]:
        if not self.right:
            return []
        self.now += self.head[0] + (count - 1) * self.head[1]
        places = range(self.at + 1, min(self.at + 1 + count, len(self.text)))
        return [self.text[place] if self.right(place) else -1 for place in places]


def seconds(
    monkeypatch, draft: Draft, made: Callable[[], Simulated], *, streamed: bool = False, answers: int = 1
) -> float:
    """What texts take, one after the other with what was learned, drafted so."""
    drafts, total = Drafts(draft, streamed=streamed), 0.0
    for _ in range(answers):
        model = made()
        monkeypatch.setattr(drafted_steps, "perf_counter", lambda model=model: model.now)
        taken = drafts.of(model, ())
        for token in model.text:
            taken.step(token)
        total += model.now
    return total


def compared(monkeypatch, made: Callable[[], Simulated], **more) -> tuple[float, float, float]:
    """What `auto` takes as a multiple of the best fixed number of guesses, and of none; and that best number's gain."""
    fixed = [seconds(monkeypatch, Draft(on=False), made, **more)]
    fixed += [seconds(monkeypatch, Draft(at_a_time=count), made, **more) for count in range(1, 8)]
    auto = seconds(monkeypatch, Draft(), made, **more)
    return auto / min(fixed), auto / fixed[0], fixed[0] / min(fixed)
