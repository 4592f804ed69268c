"""What changes while a model runs, and what a step reads of it."""

from __future__ import annotations

import numpy as np
import pytest

from qcli.errors import UsageError
from qcli.layers.state import State


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


def test_a_snapshot_is_put_back():
    state = State(8)
    cache, recurrent = state.cache(1, 16), state.recurrent(3)
    cache[:, :2], recurrent[:], state.position = 1, 2, 2
    before = state.snapshot()
    cache[:, :4], recurrent[:], state.position = 3, 4, 4
    state.restore(before)
    assert (state.position, recurrent.tolist()) == (2, [2, 2, 2])
    assert np.array_equal(cache[0, :, 0], [1, 1, 3, 3, 0, 0, 0, 0])  # what lies beyond the position means nothing


def test_heads_that_do_not_divide_into_blocks():
    with pytest.raises(UsageError, match="multiple of 32, not 80") as caught:
        State(8, "q8_0").cache(1, 80)
    assert caught.value.hint == "give --kv-type f16"
    assert State(8, "f16").cache(1, 80).shape == (1, 8, 80)
