"""How far work is, in one line: what it says, how it fits, and that it moves between what it is told."""

from __future__ import annotations

import pytest

from qcli.terminal.progress_line import ProgressLine, time_left


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def reading(clock, seconds=2.0, fraction=0.4, stage="reading 979 tokens"):
    """A line that was told of a stage when it began, and after some seconds how far it is."""
    line = ProgressLine(stage, clock)
    line.tell(stage, 0.0)
    clock.now += seconds
    line.tell(stage, fraction)
    return line


def test_the_whole_line(clock):
    assert reading(clock).text(80) == "reading 979 tokens ━━━━━━━━━╸────────────── 40 % · 3 s left"


def test_what_nobody_knows_the_length_of_turns(clock):
    line = ProgressLine("loading", clock)
    first, second = line.text(80), line.text(80)
    assert {first[1:], second[1:]} == {" loading"}
    assert first != second


@pytest.mark.parametrize("columns", [12, 20, 30, 40, 50, 60, 80, 200])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.999, 1.0])
def test_it_fits_into_a_line_and_never_fills_it(clock, columns, fraction):
    for seconds in (0.5, 70, 90_000):
        assert len(reading(clock, seconds, fraction, "reading 12,345 tokens").text(columns)) < columns
    assert len(ProgressLine("compiling kernels (once)", clock).text(columns)) < columns


def test_in_forty_columns_the_time_left_stays(clock):
    assert reading(clock).text(40) == "reading 979 tokens ━╸── 40 % · 3 s left"


def test_the_detail_follows_the_stage(clock):
    line = ProgressLine("scoring", clock)
    line.tell("scoring", 0.5, "7.31")
    assert line.text(80).startswith("scoring 7.31 ━")


def test_between_two_words_it_moves_on_as_fast_as_before(clock):
    line = reading(clock)
    clock.now += 1
    assert " 60 % · 2 s left" in line.text(80)


def test_it_never_moves_further_than_the_last_step_was_nor_back_nor_to_the_end(clock):
    line = reading(clock)
    clock.now += 100
    assert " 80 %" in line.text(80)
    line.tell(line.stage, 0.5)
    assert " 80 %" in line.text(80)
    line.tell(line.stage, 0.95)
    clock.now += 1000
    assert " 99 %" in line.text(80)
    line.tell(line.stage, 1.0)
    assert "100 %" in line.text(80)


def test_a_new_stage_begins_anew(clock):
    line = reading(clock)
    clock.now += 100
    line.tell("quantizing", 0.1)
    assert "quantizing ━━" in line.text(80)
    assert " 10 %" in line.text(80)
    assert "left" not in line.text(80)


def test_an_encoding_without_these_signs_gets_others(clock):
    assert reading(clock).text(80, encoding="ascii") == "reading 979 tokens =========-.............. 40 % | 3 s left"
    assert ProgressLine("loading", clock).text(80, encoding="latin-1") == "- loading"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "1 s"), (2.1, "3 s"), (59.5, "1 min 0 s"), (80, "1 min 20 s"), (7500, "2 h 5 min"), (4e6, "1,111 h 6 min")],
)
def test_the_time_left(seconds, said):
    assert time_left(seconds) == f"{said} left"
