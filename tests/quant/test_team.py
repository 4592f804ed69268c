"""Threads that replay a plan: every share of every record is done once, and none before the record before is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from kernel_helpers import new_plan, running

from quant.atomics import atomic_add
from quant.batch import BATCH, Batch
from quant.jit import kernel
from quant.plan import Plan, aligned
from quant.simd import load_i64, store_i64
from quant.team import Team, replay

SIZES = [1, 2, 3, 5]


@kernel
def count_me(rank, size, counts):
    """counts[0] += 1, and counts[1] += rank."""
    atomic_add(counts, 1)
    atomic_add(counts + 8, rank)


@kernel
def write_turn(rank, size, turns, step):
    """Leave one's own step."""
    store_i64(turns + 8 * rank, step)


@kernel
def check_turns(rank, size, turns, step, errors):
    """Everybody must have left the same step before anybody gets here."""
    for other in range(size):
        if load_i64(turns + 8 * other) != step:
            atomic_add(errors, 1)


def counting_plan(size: int, records: int):
    plan, counts = new_plan(1, size), aligned(2, np.int64)
    for _ in range(records):
        plan.add(count_me, counts)
    return plan, counts


@pytest.mark.parametrize("size", SIZES)
def test_every_share_of_every_record_is_done_once(size):
    plan, counts = counting_plan(size, 10)
    with running(plan) as run:
        run()
        assert counts.tolist() == [10 * size, 10 * sum(range(size))]
        run()
        assert counts[0] == 20 * size


@kernel
def mark_share(rank, size, marks, sizes):
    """marks[rank] += 1; sizes[0] is what the share was told about their number."""
    atomic_add(marks + 8 * rank, 1)
    store_i64(sizes, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shares", [1, 2, 7])
def test_a_record_may_have_several_shares_of_each_thread(size, shares):
    plan, marks, sizes = new_plan(1, size), aligned(64, np.int64), aligned(1, np.int64)
    for _ in range(50):
        plan.add(mark_share, marks, sizes, shares=shares)
    with running(plan) as run:
        for _ in range(20):
            run()
    assert marks[: size * shares].tolist() == [1000] * (size * shares)
    assert not marks[size * shares :].any()
    assert sizes[0] == size * shares


def test_any_number_of_the_threads_may_take_part():
    plan, marks, sizes = new_plan(1, 5), aligned(64, np.int64), aligned(1, np.int64)
    for _ in range(10):
        plan.add(mark_share, marks, sizes, shares=2)
    team, compiled, rounds = Team(5), plan.compile(), 200
    for i in range(rounds):
        team.active = active = (1, 5, 2, 4, 3)[i % 5]
        team.run(compiled)
        assert sizes[0] == 2 * active
    team.close()
    assert marks[:10].tolist() == [
        10 * rounds // 5 * sum(2 * active > share for active in range(1, 6)) for share in range(10)
    ]


def test_threads_that_take_no_part_are_left_asleep(monkeypatch):
    """One that is woken for nothing waits again."""
    waited: set[threading.Thread] = set()
    sleep_on = threading.Condition.wait

    def noted(condition: threading.Condition, timeout: float | None = None) -> bool:
        waited.add(threading.current_thread())
        return sleep_on(condition, timeout)

    plan, counts = counting_plan(5, 1)
    team, compiled = Team(5), plan.compile()
    team.active = 2
    team.run(compiled)
    time.sleep(0.5)  # all fall asleep
    monkeypatch.setattr(threading.Condition, "wait", noted)
    for _ in range(20):
        team.run(compiled)
        team.active = 5  # as between tokens, where nothing runs
        team.active = 2
    time.sleep(0.1)
    assert not waited.intersection(team._helpers[1:])
    team.active = 5
    team.run(compiled)
    team.close()
    assert counts[0] == 21 * 2 + 5


def test_a_team_goes_on_without_a_helper_that_does_not_come(monkeypatch):
    monkeypatch.setattr(
        "quant.team.replay", lambda address, rank: replay(address, rank) if rank != 2 else time.sleep(0.2)
    )
    plan, counts = counting_plan(3, 1000)
    with running(plan) as run:
        began = time.perf_counter()
        run()
        run()
        assert counts.tolist() == [2 * 3000, 2 * 3000]
    assert time.perf_counter() - began < 60  # a barrier would never have opened


@pytest.mark.parametrize("size", SIZES)
def test_nobody_starts_a_record_before_all_have_done_the_last(size):
    plan, turns, errors = new_plan(1, size), aligned(size, np.int64), aligned(1, np.int64)
    for step in range(1, 101):
        plan.add(write_turn, turns, step)
        plan.add(check_turns, turns, step, errors)
    with running(plan) as run:
        for _ in range(20):
            run()
    assert errors[0] == 0


def test_helpers_that_fell_asleep_wake_up():
    plan, counts = counting_plan(3, 1)
    with running(plan) as run:
        for _ in range(3):
            run()
            time.sleep(0.02)
    assert counts[0] == 9


@kernel
def rest_a_while(rank, size, rounds, sink):
    """Rank 0 works longer than the others."""
    for i in range(rounds if rank == 0 else 1):
        atomic_add(sink, i)


@pytest.mark.parametrize("size", [1, 2])
def test_times_are_noted_by_record(size):
    plan, sink, times = new_plan(1, size), aligned(1, np.int64), aligned((3, 2), np.int64)
    for rounds in (1, 1_000_000, 1):
        plan.add(rest_a_while, rounds, sink)
    team, compiled = Team(size), plan.compile()
    team.run(compiled)
    team.run(compiled, times)
    first = times.copy()
    team.run(compiled, times)
    team.close()
    assert (first >= 0).all()
    assert first[1, 0] > 10 * max(first[0, 0], first[2, 0])
    assert (times >= first).all()
    assert times[1, 0] > first[1, 0]


def test_an_empty_plan_is_replayed_by_doing_nothing():
    with running(new_plan(1, 2)) as run:
        run()


def test_closing_ends_the_helpers_and_may_be_done_twice():
    before = threading.active_count()
    team = Team(3)
    assert threading.active_count() == before + 2
    team.close()
    team.close()
    assert threading.active_count() == before


def test_a_team_that_was_closed_runs_nothing():
    for size in SIZES:
        plan, counts = counting_plan(size, 1)
        team = Team(size)
        team.close()
        with pytest.raises(RuntimeError, match="have ended"):
            team.run(plan.compile())
        assert counts[0] == 0


@pytest.mark.parametrize("rest", [0, 0.5])  # seconds: helpers are awake, or have fallen asleep
def test_an_interruption_before_a_replay_leaves_nobody_behind(monkeypatch, rest):
    """Helpers that had begun would wait for the first thread at a barrier."""
    plan, counts = counting_plan(3, 10)
    team, compiled = Team(3), plan.compile()

    def interrupted(*_):
        raise KeyboardInterrupt

    for _ in range(3):
        time.sleep(rest)
        before = int(counts[0])
        with monkeypatch.context() as now:
            now.setattr("quant.team.replay", interrupted)  # as soon as helpers are awake
            with pytest.raises(KeyboardInterrupt):
                team.run(compiled)
        team.run(compiled)
        assert counts[0] == before + 30
    team.close()


def test_two_teams_do_not_meet():
    (one, ones), (two, twos) = counting_plan(2, 5), counting_plan(2, 7)
    with running(one) as run_one, running(two) as run_two:
        workers = [threading.Thread(target=lambda run=run: [run() for _ in range(50)]) for run in (run_one, run_two)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert (ones[0], twos[0]) == (2 * 5 * 50, 2 * 7 * 50)


@kernel
def add_operands(rank, size, total, whole, half, memory, late):
    """memory[0] + whole + late, and the bits of a float."""
    store_i64(total, load_i64(memory) + whole + late)
    store_i64(total + 8, half)


def test_operands_are_numbers_floats_arrays_and_what_is_known_late():
    plan, total, memory = new_plan(1), aligned(2, np.int64), np.array([1000], np.int64)
    known: dict[str, Callable[[], int]] = {}
    plan.add(add_operands, total, 7, 0.5, memory, lambda: known["late"])
    known["late"] = lambda: 30
    with running(plan) as run:
        run()
    assert total[0] == 1037
    assert np.array([total[1]]).astype(np.int32).view(np.float32)[0] == 0.5


def test_a_record_holds_so_many_operands():
    with pytest.raises(ValueError, match="operands"):
        new_plan(1).add(count_me, *range(100))


def test_buffers_and_rows_are_shared_by_name_and_shape():
    plan = Plan(4, 1, Batch())
    assert plan.activation("x", 32) is plan.activation("x", 32)
    assert plan.activation("x", 32) is not plan.activation("x", 64)
    assert plan.activation("x", 32).tokens == 4
    assert plan.activation("x", 32, 9).tokens == 9
    assert plan.buffer("b", 3, np.int64) is plan.buffer("b", 3, np.int64)
    assert plan.buffer("b", (3, 2), np.float32).shape == (3, 2)


def test_a_hook_is_found_by_its_class():
    class Watcher:
        pass

    class Loud(Watcher):
        pass

    loud = Loud()
    plan = Plan(1, 1, Batch(), None, loud)
    assert plan.hook(Watcher) is plan.hook(Loud) is loud
    assert plan.hook(Team) is None


@kernel
def note_batch(rank, size, batch, seen):
    """What this replay takes."""
    store_i64(seen, load_i64(batch + BATCH.tokens))
    store_i64(seen + 8, load_i64(batch + BATCH.position))


def test_kernels_see_what_a_replay_takes():
    plan, seen = new_plan(9), aligned(2, np.int64)
    plan.add(note_batch, plan.batch, seen)
    with running(plan) as run:
        run(7, 100)
        assert seen.tolist() == [7, 100]
        run(1, 107)
        assert seen.tolist() == [1, 107]
    assert plan.batch.tokens == 1


@pytest.mark.parametrize("shape", [3, (5, 7), (2, 3, 4)])
def test_memory_for_kernels_is_zero_and_lies_on_a_cache_line(shape):
    array = aligned(shape, np.float32)
    assert array.shape == (shape if isinstance(shape, tuple) else (shape,))
    assert array.ctypes.data % 64 == 0
    assert not array.any()
