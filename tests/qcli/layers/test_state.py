"""What changes while a model runs, and what a step reads of it."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from qcli.errors import UsageError
from qcli.layers.state import State, all_or_nothing


def test_a_step_reads_caches_up_to_its_position():
    state = State(64)
    state.cache(2, 16)
    assert [state.bytes_per_step(position) for position in (0, 9, 63)] == [64, 640, 4096]


def test_a_step_reads_a_window_of_them():
    state = State(64)
    state.cache(2, 16, window=10)
    assert [state.bytes_per_step(position) for position in (0, 9, 10, 63)] == [64, 640, 640, 640]


def test_recurrent_states_are_read_and_written():
    state = State(64)
    state.recurrent(4, 8)
    assert state.bytes_per_step(0) == state.bytes_per_step(63) == 2 * 4 * 32


def test_a_position_is_gone_back_to():
    state = State(8)
    cache, recurrent = state.cache(1, 16), state.recurrent(3)
    cache[:, :2], recurrent[:], state.position = 1, 2, 2
    before = state.recurrent_copy()
    cache[:, 2:4], recurrent[:], state.position = 3, 4, 4
    state.rewind(2, before)
    assert (state.position, recurrent.tolist()) == (2, [2, 2, 2])


@pytest.mark.parametrize(("first", "end"), [(2, 7), (3, 5), (2, 3), (6, 7)])
def test_rows_are_put_back_each_where_it_was(first, end):
    state = State(8)
    keys, means = state.cache(2, 16), state.cache(1, 32, tokens_per_row=3)
    assert means.shape == (1, 3, 32)
    keys[:], means[:] = np.arange(8)[:, None], np.arange(3)[:, None]
    kept = state.copy_rows(2, 7)
    keys[:], means[:] = 9, 9
    kept.put_back(first, end)
    assert keys[1, :, 0].tolist() == [n if first <= n < end else 9 for n in range(8)]
    assert means[0, :, 5].tolist() == [n if first // 3 <= n < end // 3 else 9 for n in range(3)]
    assert [rows.shape[1] for rows in state.rows(2, 7)] == [5, 2]


def test_a_window_keeps_itself_and_what_a_replay_writes():
    state = State(1000, most_tokens=8, chunk=100)
    whole, ring = state.cache(2, 16), state.cache(2, 16, window=10)
    assert (whole.shape[1], ring.shape[1]) == (1000, 128)
    assert (state.cache_bytes, state.window_bytes) == (64 * 1128, 64 * 10)
    assert state.slot_bytes == 64 * (1000 + 64)
    assert State(1000).cache(2, 16, window=10).shape[1] == 1000  # it is not told how many tokens a replay takes
    assert State(110, chunk=100).cache(2, 16, window=10).shape[1] == 110  # the context is no longer
    assert [State(1000, chunk=chunk).kept_as for chunk in (None, 100)] == ["f16", "f16"]
    assert state.kept_as == "f16+1 windows"


def test_a_window_is_gone_back_to():
    state = State(1000, chunk=50)
    ring = state.cache(1, 16, window=10)
    assert ring.shape == (1, 64, 16)

    def read(tokens):
        state.begin(tokens)
        for position in range(state.position, state.position + tokens):
            ring[:, position % 64] = position
        state.position += tokens

    def window():
        return [ring[0, position % 64, 0] for position in range(state.position - 10, state.position)]

    read(50)
    read(50)
    before = state.recurrent_copy()
    assert [state.can_go_back(position) for position in (0, 45, 46, 100)] == [False, False, True, True]
    read(50)
    assert [state.can_go_back(position) for position in (95, 96, 150)] == [False, True, True]
    read(14)
    assert not state.can_go_back(100)
    with pytest.raises(ValueError, match="windows of position 100"):
        state.rewind(100, ())
    state.rewind(100, before)
    assert window() == [*range(90, 100)]
    assert [state.can_go_back(position) for position in (99, 100)] == [False, True]
    read(7)
    state.rewind(103, state.undo_copy())
    assert window() == [*range(93, 103)]
    state.reset()
    assert state.can_go_back(0)


def test_a_window_goes_along_into_a_slot():
    state = State(1000, chunk=50)
    ring = state.cache(1, 16, window=10)
    slots = state.slots(2)
    ring[:], state.position = np.arange(64)[:, None], 150
    state.copy_to(slots, 1)
    ring[:] = 0
    state.copy_from(slots, 1, 150)
    assert [ring[0, position % 64, 0] for position in range(139, 151)] == [0, *(p % 64 for p in range(140, 150)), 0]
    assert not slots.like(ring)[0].any()


def test_what_is_undone_and_what_is_finished():
    state = State(8)
    recurrent = state.recurrent(1)

    def half():
        recurrent[:], state.position = 5, state.position + 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), all_or_nothing(state, wait=False):
        half()
    assert (state.position, recurrent[0]) == (0, 0)

    def late():
        with all_or_nothing(state, wait=True):
            signal.raise_signal(signal.SIGINT)
            recurrent[:], state.position = 5, 2

    with pytest.raises(KeyboardInterrupt):
        late()
    assert (state.position, recurrent[0]) == (2, 5)


def test_heads_that_do_not_divide_into_blocks():
    with pytest.raises(UsageError, match="multiple of 32, not 80") as caught:
        State(8, "q8_0").cache(1, 80)
    assert caught.value.hint == "give --kv-type f16, or take another model"
    assert State(8, "f16").cache(1, 80).nbytes == 2 * 8 * 80
    assert State(8, "f32").cache(1, 80).nbytes == 4 * 8 * 80
