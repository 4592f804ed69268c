"""Records handed over a few at a time, so that somebody can be told how far they are."""

from __future__ import annotations

import numpy as np
import pytest

from qcli.runtime.program import Pace, Program
from quant.batch import Batch
from quant.plan import Plan


def program(*stages):
    """Stages of so many records, each of which is its number; a callback that yields twice where the count is negative."""
    made, first = [], 0
    for count in stages:
        numbers = np.arange(first, first + abs(count))
        made.append((numbers, [str(n) for n in numbers], None if count > 0 else lambda: iter([None, None])))
        first += abs(count)
    return Program(Plan(2, 1, Batch()), made)


@pytest.mark.parametrize("told", [None, lambda fraction: None])
def test_in_pieces_the_same_records_are_replayed_in_the_same_order(told):
    seen: list[tuple[int, str]] = []
    program(5, -2, 9).replay(lambda records, parts: seen.extend(zip(records.tolist(), parts, strict=True)), told)
    assert seen == [(n, str(n)) for n in [*range(5), 5, 6, 5, 6, *range(7, 16)]]


def test_what_is_told_grows_to_the_whole():
    told: list[float] = []
    program(5, -5, 30).replay(lambda records, parts: None, told.append)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (1 / 40, 1.0)


@pytest.mark.parametrize(
    ("seconds_a_record", "sizes"),
    [(0.001, [1, 2, 4, 8, 16, 32, 37]), (0.01, [1, 2, 4, 8] + [8] * 10 + [5]), (1.0, [1] * 100)],
)
def test_pieces_become_as_long_as_the_speed_of_the_records_allows(seconds_a_record, sizes):
    now = 0.0
    pace, found = Pace(clock=lambda: now), []
    for piece in pace.pieces(100):
        found.append(piece.stop - piece.start)
        now += found[-1] * seconds_a_record
    assert found == sizes


def test_pieces_become_shorter_again():
    now = 0.0
    pace, found = Pace(clock=lambda: now), []
    for piece in pace.pieces(31):
        now += 0.0 if piece.stop < 16 else 1.0
        found.append(piece.stop - piece.start)
    assert found == [1, 2, 4, 8, 16]
    assert [piece.stop - piece.start for piece in pace.pieces(10)] == [8, 2]
