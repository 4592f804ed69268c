"""How long an answer may wait while the prompt of another is read."""

from __future__ import annotations

import itertools
import random

import pytest

from qcli.errors import UsageError
from qcli.runtime.gap_setting import gap_setting
from qcli.runtime.side_by_side import PARTS, Gap


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def gaps(most, parts, step):
    """Has a prompt read whose parts take so long; the time between the steps of others, and how many there were."""
    clock = Clock()
    gap, found, last = Gap(most, clock), [], clock.now
    for part in parts:
        clock.now += part
        if gap.is_full():
            with gap.step():
                clock.now += step
            found.append(clock.now - last)
            last = clock.now
    return found


@pytest.mark.parametrize("most", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_no_gap_is_longer_than_it_may_be(most, seed):
    """Parts of a prompt vary as they do where records are handed over by their time."""
    chance = random.Random(seed)
    usual = most / PARTS
    parts = [chance.uniform(0.7, 1.0) * usual for _ in range(2000)]
    found = gaps(most, parts, step=most / 10)
    assert max(found[1:]) <= most


def test_a_prompt_is_not_interrupted_more_often_than_need_be():
    found = gaps(0.3, [0.05] * 1000, step=0.02)
    assert {round(gap, 6) for gap in found[1:]} == {
        0.22
    }  # the step 0.02 of them; after another part 0.1 could have come


def test_where_none_may_wait_they_go_on_after_each_part():
    assert len(gaps(0.0, [0.01] * 50, step=0.0)) == 50


def test_a_part_that_took_long_is_forgotten_after_a_while():
    parts = itertools.chain([0.2], itertools.repeat(0.01, 500))
    found = gaps(0.3, parts, step=0.01)
    assert max(found) <= 0.3
    assert found[-1] > 0.25


@pytest.mark.parametrize("wrong", [0, -1, 0.001, 61, True, "x", float("nan")])
def test_what_is_no_length_of_a_pause(wrong):
    with pytest.raises(UsageError, match=r"--max-gap cannot be .*"):
        gap_setting("--max-gap", wrong)
