"""How far work is, told of a part, and to somebody who raises."""

from __future__ import annotations

import pytest

from qcli.progress import heard_out, part_of, reading


def test_a_part_is_told_as_that_of_the_whole():
    told = []
    half = part_of(lambda stage, fraction: told.append((stage, fraction)), reading(1910), 955, 955, 1910)
    half("any", 0.0)
    half("any", 1.0)
    assert told == [("reading 1,910 tokens", 0.5), ("reading 1,910 tokens", 1.0)]
    assert part_of(None, "x", 0, 1, 1) is None


def test_what_is_raised_waits_for_the_end_of_the_block():
    calls = []

    def fail(stage, fraction):
        calls.append(fraction)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), heard_out(fail) as told:
        told("x", 0.1)
        told("x", 0.2)
        calls.append("end")
    assert calls == [0.1, "end"]


def test_ctrl_c_need_not_wait():
    def interrupt(stage, fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), heard_out(interrupt, (KeyboardInterrupt,)) as told:
        told("x", 0.1)
        pytest.fail("it waited")
