"""A whole text's time, of a model of which only the time matters: `auto` is nearly as quick as the best fixed number of
guesses, and hardly ever slower than none, whatever steps and guesses cost and however often these come true."""

from __future__ import annotations

import random

import pytest
from simulated_drafts import Simulated, compared

N = 1500
FRESH = list(range(10, 10 + N))  # nothing repeats itself: guesses are the head's
CYCLE = [10 + i % 97 for i in range(N)]  # guesses of the text are right
TRAPS = [i if i % 4 == 3 else i % 4 - 4 for i in range(10, 10 + N)]  # guesses of the text are wrong
COPY = [-i if i % 31 == 30 else token for i, token in enumerate(CYCLE)]  # right, but for a name that is changed
HEAD = (0.5, 0.27)  # of a step of one token: a head's first guess, and each that follows (docs/speed.md, 16 threads)
MEASURED = (1, 1.39, 1.61, 1.98, 2.3, 2.6, 2.9, 3.21)  # steps, ibid.

AT_DEPTH = (1, 1.4, 1.6, 1.8, 2.1, 2.3, 2.5, 2.7)  # steps at 4,000 tokens of context


def table(*costs):
    return lambda width, at: costs[width - 1]


def sloped(slope):
    return lambda width, at: 1 + slope * (width - 1)


def then(before, after):
    """Costs that change in the midst of the text."""
    return lambda width, at: (before if at < N // 2 else after)(width, at)


def times(cost, factor):
    return lambda width, at: factor * cost(width, at)


def noisy(cost):
    """A tenth more or less, and now and then something else comes between."""
    draw = random.Random(5)
    return lambda width, at: cost(width, at) * draw.uniform(0.9, 1.1) * (5 if draw.random() < 0.01 else 1)


def often(share):
    draw = random.Random(3)
    drawn = [draw.random() < share for _ in range(N + 10)]
    return lambda at: drawn[at]


def always(at):
    return True


def never(at):
    return False


MIXED = {
    "right": (sloped(0.1), always, HEAD),
    "right, as measured": (table(*MEASURED), always, HEAD),
    "right, a step of two alone is cheap": (table(1, 1.05, 2.5, 3, 3.5, 4, 4.5, 5), always, (0.1, 0.1)),
    "wrong": (sloped(0.35), never, HEAD),
    "wrong, and free to guess": (sloped(0.1), never, (0, 0)),
    "right, then wrong": (table(*MEASURED), lambda at: at < N // 2, (0.1, 0.1)),
    "wrong, then right": (sloped(0.2), lambda at: at >= N // 2, (0.1, 0.1)),
    "right in stretches of fifty": (sloped(0.35), lambda at: at // 50 % 2 == 0, (0.2, 0.2)),
    "seldom right": (table(*MEASURED), often(0.3), HEAD),
    "often right": (sloped(0.2), often(0.8), (0.1, 0.1)),
    "right, and every step a loss": (sloped(1.0), always, HEAD),
    "right, and steps dearer than tokens": (sloped(1.2), always, (0, 0)),
    "often right, and guessing itself a loss": (sloped(0.35), often(0.8), (1.0, 1.0)),
    "steps become dear": (then(sloped(0.1), sloped(1.0)), always, (0, 0)),
    "steps become cheap": (then(sloped(1.0), sloped(0.1)), always, (0, 0)),
    "the machine gets busy": (then(table(*MEASURED), times(table(*MEASURED), 3)), often(0.8), (0.1, 0.1)),
    "the machine gets free, every step a loss": (then(times(sloped(1.0), 3), sloped(1.0)), often(0.8), (0, 0)),
}
OF_TEXT = {
    "it repeats itself": (CYCLE, sloped(0.2), None),
    "it repeats itself, and every step is a loss": (CYCLE, sloped(1.2), None),
    "it repeats itself with a name changed, at depth": (COPY, table(*AT_DEPTH), None),
    "it only seems to repeat itself": (TRAPS, sloped(0.35), None),
    "it only seems to, and a head knows better": (TRAPS, sloped(0.2), always),
    "it only seems to, and a head is wrong, too": (TRAPS, sloped(0.35), never),
}


def check(monkeypatch, made, streamed=False):
    best, none, _ = compared(monkeypatch, made, streamed=streamed)
    assert none < 1.03
    assert best < (1.15 if streamed else 1.08)  # where experts are streamed, less is taken for granted


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("cost", "right", "head"), MIXED.values(), ids=MIXED)
def test_guesses_of_a_head(monkeypatch, cost, right, head, streamed):
    check(monkeypatch, lambda: Simulated(FRESH, noisy(cost), right, head), streamed)


@pytest.mark.parametrize(("text", "cost", "right"), OF_TEXT.values(), ids=OF_TEXT)
def test_guesses_of_the_text(monkeypatch, text, cost, right):
    check(monkeypatch, lambda: Simulated(text, noisy(cost), right, (0.1, 0.1)))


def test_what_is_made_ready_at_first_is_no_cost_of_guessing(monkeypatch):
    """The first guess and the first step of several tokens compile what they need."""

    def made():
        compiled: list[int] = []

        def cost(width, at):
            if width > 1 and not compiled:
                compiled.append(width)
                return 100.0
            return 1 + 0.1 * (width - 1)

        return Simulated(FRESH, cost, always, (0.1, 0.1))

    assert compared(monkeypatch, made)[0] < 1.08
