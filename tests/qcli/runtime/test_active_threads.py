"""How many threads decode: whatever a machine's tokens take, the quickest number is found, and kept but for trials."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from qcli.runtime.active_threads import ActiveThreads
from quant.team import Team

SECONDS = 20.0  # of decoding


def mean_seconds(chosen: ActiveThreads, token: Callable[[int, float], float], seconds: float = SECONDS) -> float:
    """What a token takes on average; token(threads, now): what it takes with so many threads."""
    now, count = 0.0, 0
    while now < seconds:
        took = token(chosen.count, now)
        chosen.note(took)
        now += took
        count += 1
    return now / count


def scaling(threads: int) -> float:
    return 0.001 + 0.02 / threads


def limited_by_memory(threads: int) -> float:
    return max(0.02 / threads, 0.002) + 0.0001 * threads


def beside_many_others(threads: int) -> float:
    return 0.002 * threads


def measured(*rates: tuple[int, float]) -> Callable[[int], float]:
    """As tok/s with some numbers of threads say, and in between in proportion."""
    threads, tok_per_s = zip(*rates, strict=True)
    return lambda count: 1 / float(np.interp(count, threads, tok_per_s))


# On 16 cores: a tiny model beside 12 busy programs, four layers of a large one beside 4.
tiny_beside_twelve = measured((1, 785), (2, 1213), (4, 1583), (8, 495), (16, 226))
large_beside_four = measured((1, 20), (4, 69), (8, 126), (12, 163), (16, 116))


@pytest.mark.parametrize(
    "took", [scaling, limited_by_memory, tiny_beside_twelve, large_beside_four, beside_many_others]
)
@pytest.mark.parametrize("most", [2, 3, 16])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_tokens_take_little_more_than_with_the_best_fixed_number(took, most, spread):
    rng = random.Random(1)

    def token(threads: int, _now: float) -> float:
        return took(threads) * rng.uniform(1 - spread, 1 + spread)

    chosen = ActiveThreads(1, most)
    mean_seconds(chosen, token, 3)  # in which the number is found
    mean = mean_seconds(chosen, token)
    assert mean < 1.1 * min(took(threads) for threads in range(1, most + 1))


def test_the_number_follows_a_load_that_comes_and_goes():
    def token(threads: int, now: float) -> float:
        return beside_many_others(threads) if 10 < now < 20 else scaling(threads)

    chosen = ActiveThreads(1, 8)
    mean_seconds(chosen, token, 10)
    assert chosen.count == 8
    mean_seconds(chosen, lambda threads, now: token(threads, now + 10), 9)
    assert chosen.count <= 2
    mean_seconds(chosen, scaling_later, 9)
    assert chosen.count >= 6


def scaling_later(threads: int, _now: float) -> float:
    return scaling(threads)


def test_a_number_that_was_given_stays():
    chosen = ActiveThreads(4, 4)
    mean_seconds(chosen, lambda threads, _: beside_many_others(threads))
    assert chosen.count == 4


def test_only_a_token_of_an_answer_is_done_by_fewer():
    team, chosen = Team(3), ActiveThreads(1, 3)
    mean_seconds(chosen, lambda threads, _: beside_many_others(threads), 3)
    while chosen.count != 1:
        chosen.note(beside_many_others(chosen.count))
    with chosen.decode(team):
        assert team.active == 1
    assert team.active == 3
    team.close()


def test_what_teaches_nothing_is_not_done_by_a_number_on_trial():
    team, chosen = Team(2), ActiveThreads(1, 2)
    mean_seconds(chosen, lambda threads, _: scaling(threads), 3)
    while chosen.count != 1:  # a trial
        chosen.note(scaling(chosen.count))
    with chosen.follow(team):
        assert team.active == 2
    team.close()


def with_stalls(mean: Callable[[int], float], share: float) -> Callable[[int, float], float]:
    """Tokens of which a share of the time is stalls of time slices, 3 ms on average, that come at random."""
    rng = random.Random(7)

    def token(threads: int, _now: float) -> float:
        whole = mean(threads)
        took, left = whole * (1 - share), rng.expovariate(1)
        while left < whole * share / 0.003:
            took += rng.expovariate(1 / 0.003)
            left += rng.expovariate(1)
        return took

    return token


@pytest.mark.parametrize("took", [tiny_beside_twelve, large_beside_four, measured((1, 1350), (2, 1000))])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_stalls_of_time_slices_hide_little_of_which_number_is_quickest(took, share):
    most = 2 if took(1) < 1 / 1000 and took(2) > took(1) else 16
    chosen, token = ActiveThreads(1, most), with_stalls(took, share)
    mean_seconds(chosen, token, 3)
    assert mean_seconds(chosen, token, 40) < 1.12 * min(took(threads) for threads in range(1, most + 1))


@pytest.mark.parametrize("factor", [0.0003, 0.01, 1.0])  # seconds of a token with all threads
def test_a_number_that_is_far_slower_is_tried_at_little_cost(factor):
    chosen = ActiveThreads(1, 16)
    seconds = 200 * max(factor, 0.05)
    mean = mean_seconds(chosen, lambda threads, _: factor * 16 / threads, seconds)
    assert mean < 1.06 * factor


def test_loads_that_stop_and_go_cost_little_beside_the_best_fixed_number():
    quiet, busy = measured((1, 1350), (2, 2300)), measured((1, 1300), (2, 1000))

    def token(threads: int, now: float) -> float:
        return (busy if now % 0.6 < 0.3 else quiet)(threads)

    def fixed(threads: int) -> float:
        return 2 / (1 / busy(threads) + 1 / quiet(threads))

    chosen = ActiveThreads(1, 2)
    assert mean_seconds(chosen, token) < 1.05 * min(fixed(1), fixed(2))


def test_a_load_that_comes_or_goes_is_noticed_within_two_seconds():
    quiet, busy = measured((1, 1350), (2, 2300)), measured((1, 1350), (2, 600))  # one thread tells nothing of it
    chosen = ActiveThreads(1, 2)
    mean_seconds(chosen, lambda threads, _: quiet(threads), 10)
    for load, best in ((busy, 1), (quiet, 2), (busy, 1), (quiet, 2)):
        token = at_any_time(load)
        mean_seconds(chosen, token, 2)
        assert mean_seconds(chosen, token, 5) < 1.06 * load(best)


def at_any_time(took: Callable[[int], float]) -> Callable[[int, float], float]:
    return lambda threads, _now: took(threads)
