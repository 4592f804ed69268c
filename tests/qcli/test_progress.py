"""How far work is, told of a part, and to somebody who raises."""

from __future__ import annotations

import pytest

from qcli.progress import heard_out, part_of, reading


def test_a_part_is_told_as_that_of_the_whole():
    told: list[tuple[str, float]] = []
    half = part_of(lambda *now: told.append(now), reading(1910), 955, 955, 1910)
    assert half
    half("any", 0.0)
    half("any", 1.0)
    assert told == [("reading 1,910 tokens", 0.5), ("reading 1,910 tokens", 1.0)]
    assert part_of(None, "x", 0, 1, 1) is None


def told_by(raised, but=()) -> list[float | str]:
    """What is done in a block of which whoever is told raises, and what the block raises."""
    done: list[float | str] = []

    def fail(stage, fraction):
        done.append(fraction)
        raise raised

    def block():
        with heard_out(fail, but) as told:
            assert told
            told("x", 0.1)
            told("x", 0.2)
            done.append("end")

    with pytest.raises(raised):
        block()
    return done


def test_what_is_raised_waits_for_the_end_of_the_block():
    assert told_by(ZeroDivisionError) == [0.1, "end"]


def test_ctrl_c_need_not_wait():
    assert told_by(KeyboardInterrupt, (KeyboardInterrupt,)) == [0.1]
    assert told_by(KeyboardInterrupt) == [0.1, "end"]
