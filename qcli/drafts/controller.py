"""How many tokens to guess, and from what: as pays, by what steps have taken and by how often guesses came true.

What promises a gain is done as long as it keeps the promise. What guesses have cost more than they brought is a debt, which
plain steps pay off slowly; so a text takes hardly longer than without guesses, whatever was expected of them. What is
saved by the same pay is spent on trials, of guesses that promise nothing yet, and of more or fewer at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from qcli.drafts.estimates import Chances, Time

_GAIN = 1.03  # what guessing must promise, as a ratio of speeds
# Of a step's time, for each further token, as long as nothing is known; where most of it is reading experts from the disk,
# of which each token needs others, only guesses that are nearly sure promise enough to be tried.
_SLOPE, _SLOPE_STREAMED = 0.35, 0.8
_GUESS = 0.2  # likewise of a guess that the model makes itself
_DEAREST = 1.25  # of either, for each token: more where something else came between
_FIRST, _COMPARED = 3, 32  # steps of one token at first; steps of several, after which one of one is measured again
_PAY = 0.015  # what a plain step adds to the balance, in steps of one token
_AT_FIRST, _MOST = 2.0, 6.0  # of the balance
_RESERVE = 1.0  # of the balance, kept for guesses that promise a gain
_AGAIN = 48  # steps of several from one trial of another number to the next
_FORGOTTEN = 0.005  # of what was measured, at each chance that was not taken: so that it is tried again
# such chances, after which costs are forgotten by as much at once: to look at them takes longer than to choose
_SELDOM = 8
_REST, _TIRED = 32, 8  # steps at most that the model's own guesses rest; chances in a row not taken, that each add one
_KEEN, _LEAST = 0.25, 0.1  # how soon trials are fewer that cost more than they bring; the least share of them


class Offer(NamedTuple):
    """Guesses that could be had: how likely, at most how many, and whether the model would have to make them."""

    chances: Chances
    most: int
    by_head: bool = False


class Controller:
    """Chooses what to guess; times of steps and guesses count as multiples of a step of one token."""

    def __init__(self, most: int, *, streamed: bool = False) -> None:
        """most: guesses of a step; streamed: whether experts are read from the disk."""
        self._most, self._slope = most, _SLOPE_STREAMED if streamed else _SLOPE
        self._plain = Time()  # seconds of a step of one token
        self._steps: dict[int, Time] = {}  # of a step with so many guesses
        self._guesses: dict[int, Time] = {}  # of so many guesses that the model makes itself
        self._chances: dict[Hashable, Chances] = {}
        self._balance = _RESERVE if streamed else _AT_FIRST  # steps of one token that trials may cost
        self._due = _FIRST  # steps of one token that come before others, so that there is something to compare with
        self._since_plain = self._since_trial = self._trials = self._passed = 0
        self._not_taken = self._rest = 0  # chances of the model's own guesses, in a row; steps for which these rest
        self._rested = self._idle = 0  # steps, not accounted for yet: of such a rest; without any guesses to be had
        self._keen = 1.0  # share of the pay, and of what is forgotten, while trials bring less than they cost
        self._costs: tuple[list[float], list[float]] | None = None  # see `_costs_by_count`; None when a time was noted
        self._ready = self._head_ready = False  # whether the first has been, with all that had to be made ready

    def chances(self, kind: Hashable, expected: float) -> Chances:
        """Those of a kind of guesses; expected: what share comes true, as long as nothing is known."""
        return self._chances.setdefault(kind, Chances(expected))

    def choose(self, offers: Sequence[Offer]) -> tuple[Offer, int] | None:
        """Which offer to take, and how many guesses of it; None for none. To be asked before each step, and obeyed."""
        if self._due:
            return None
        self._account(offers)
        best, chosen = _GAIN, None
        for offer in offers:
            gains = self._gains(offer, self._affordable(offer))
            gain = max(gains)
            if gain > best:
                best, chosen = gain, (offer, gains.index(gain))
        if chosen:
            self._not_taken = 0 if chosen[0].by_head else self._not_taken
            return chosen[0], self._other(*chosen)
        if offers and self._balance > _RESERVE:
            likely = max(offers, key=lambda offer: self.gain(offer, 1))
            if self._cost(likely, 1) - 1 < self._balance - _RESERVE:
                return likely, 1
        self._pass_by(offers, 1)
        return None

    def rests(self, by_head: bool) -> bool:
        """Whether nothing needs to be chosen before this step, for which the text gives no guess.

        by_head: whether the model could guess; then it rests if that has not paid for long. A step with guesses ends a rest:
        it tells what they cost and bring. Where they pay no more than before, the next rest is as long.
        """
        if self._due:
            return True
        if not by_head:
            self._idle += 1
            return True
        if not self._rest:
            return False
        self._rest, self._rested = self._rest - 1, self._rested + 1
        return True

    def gain(self, offer: Offer, count: int) -> float:
        """What so many guesses promise, as a ratio of speeds."""
        return self._gains(offer, count)[count]

    def took(self, count: int, seconds: float, guess_s: float = 0.0) -> None:
        """A step with so many guesses took so long, and so did guessing before it, where the model did that itself."""
        if not count:
            self._since_plain = 0
            self._due = max(0, self._due - 1)
            if self._plain.note(seconds) is None:  # another will tell
                self._due = max(1, self._due)
            return
        self._since_plain, self._rest = self._since_plain + 1, 0
        if self._since_plain == _COMPARED:
            self._due = 1
        if not self._plain.known:
            return
        cost = 1.0
        if guess_s:
            if self._head_ready:
                cost += self._noted(self._guesses, count, guess_s)
            self._head_ready = True
        if self._ready:
            cost += self._noted(self._steps, count, seconds) - 1
        self._ready = True
        self._balance -= cost - 1
        self._keen = max(_LEAST, self._keen * (1 - _KEEN * min(1.0, cost - 1)))

    def came_true(self) -> None:
        """A guess was right."""
        self._balance, self._keen = min(_MOST, self._balance + 1), min(1.0, self._keen * (1 + _KEEN))

    def step_cost(self, count: int) -> float:
        """Of a step with so many guesses; between numbers that were measured, a mean."""
        return self._costs_by_count[0][count]

    def _cost(self, offer: Offer, count: int) -> float:
        return self._costs_of(offer)[count]

    def _costs_of(self, offer: Offer) -> list[float]:
        """By the number of guesses, none at first: what a step costs, with guesses that the model makes or without."""
        return self._costs_by_count[offer.by_head]

    @property
    def _costs_by_count(self) -> tuple[list[float], list[float]]:
        if self._costs is None:
            steps = [1 + more for more in _by_count(self._steps, 1.0, self._slope, self._most)]
            guesses = _by_count(self._guesses, 0.0, _GUESS, self._most)
            self._costs = steps, [step + guess for step, guess in zip(steps, guesses, strict=True)]
        return self._costs

    def _gains(self, offer: Offer, most: int) -> list[float]:
        """By the number of guesses, none at first and at most so many: what they promise, as a ratio of speeds."""
        share, come, chance, gains = offer.chances.share, 0.0, 1.0, []
        for cost in self._costs_of(offer)[: most + 1]:
            come += chance
            chance *= share
            gains.append(come / cost)
        return gains

    def _affordable(self, offer: Offer) -> int:
        """How many guesses the balance allows, none coming true; at most twice as many as have been tried, and one."""
        most, costs = min(offer.most, self._most, 2 * max(self._steps, default=0) + 1), self._costs_of(offer)
        return next((n for n in range(most) if costs[n + 1] - 1 > self._balance), most)

    def _other(self, offer: Offer, count: int) -> int:
        """The number that promises most, or now and then, where trials can be afforded, another one."""
        self._since_trial += 1
        if self._since_trial < _AGAIN or self._balance < _MOST / 2:
            return count
        self._since_trial, self._trials = 0, self._trials + 1
        return min(2 * count + 1, offer.most, self._most) if self._trials % 2 else max(1, count // 2)

    def _noted(self, times: dict[int, Time], count: int, seconds: float) -> float:
        """Note what took so long; the cost that is believed."""
        time, self._costs = times.setdefault(count, Time()), None
        cost = min(seconds / self._plain.value, _DEAREST * (1 + count))
        if time.note(cost) is None:  # has it become so, or has everything?
            self._due = max(1, self._due)
        return min(cost, 2 * time.value)

    def _account(self, offers: Sequence[Offer]) -> None:
        """For the steps since the last choice, before which nothing was chosen."""
        self._pass_by((), self._idle)
        self._pass_by([offer for offer in offers if offer.by_head], self._rested)
        self._idle = self._rested = 0

    def _pass_by(self, offers: Sequence[Offer], chances: int) -> None:
        """Nothing is guessed, so many times: what says that it would not pay is forgotten, slowly."""
        self._balance = min(_MOST, self._balance + _PAY * self._keen * chances)
        for offer in offers:
            offer.chances.fade(_FORGOTTEN * self._keen * chances)
            if offer.by_head:
                self._not_taken += chances
                self._rest = min(_REST, self._not_taken // _TIRED)
        self._passed += chances if offers else 0
        if self._passed >= _SELDOM:
            forgotten, self._passed, self._costs = self._passed * _FORGOTTEN * self._keen, 0, None
            for count, time in self._steps.items():
                time.fade(1 + self._slope * count, forgotten)
            for count, time in self._guesses.items():
                time.fade(_GUESS * count, forgotten)


def _by_count(times: dict[int, Time], none: float, slope: float, most: int) -> list[float]:
    """What 0 to `most` take beyond `none` that 0 takes: between those that are known a mean; slope: of each, if none is."""
    found = [0.0]
    for count, time in sorted(times.items()):
        slope, below, last = (time.value - none - found[-1]) / (count - len(found) + 1), len(found) - 1, found[-1]
        found += [last + slope * (n - below) for n in range(below + 1, count)]
        found.append(time.value - none)
    below, last = len(found) - 1, found[-1]
    slope = last / below if below else slope
    return found + [last + slope * (n - below) for n in range(below + 1, most + 1)]
