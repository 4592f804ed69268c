"""What the state holds: each turn feeds only what is new, and never answers from a wrong state."""

from __future__ import annotations

import numpy as np
import pytest
from fake_engine import FakeEngine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qcli.runtime.prefix_cache import Held


def fresh(ids):
    return FakeEngine(ctx=10_000).prefill(ids)


def test_a_longer_conversation_feeds_only_what_is_new():
    held = Held(FakeEngine())
    held.prefill([1, 2, 3])
    held.step(4)
    assert held.prefill([1, 2, 3, 4, 5, 6]).tolist() == fresh([1, 2, 3, 4, 5, 6]).tolist()
    assert held.engine.fed == [3, 2]
    assert held.prefilled == 2


def test_another_conversation_begins_anew():
    held = Held(FakeEngine())
    held.prefill([1, 2, 3])
    assert held.prefill([1, 9, 3, 4]).tolist() == fresh([1, 9, 3, 4]).tolist()
    assert held.prefilled == 4


def test_a_mark_saves_the_prompt_when_the_answer_reads_differently():
    held = Held(FakeEngine())
    held.mark_at = 3
    held.prefill([1, 2, 3])
    held.step(4)
    held.mark_at = None
    assert held.prefill([1, 2, 3, 9, 9]).tolist() == fresh([1, 2, 3, 9, 9]).tolist()
    assert held.engine.fed == [3, 2]


def test_a_mark_inside_the_prompt_leaves_out_what_will_not_last():
    held = Held(FakeEngine())
    held.mark_at = 2
    held.prefill([1, 2, 3])
    held.mark_at = None
    held.prefill([1, 2, 8, 8, 8])
    assert held.engine.fed == [2, 1, 3]


def test_the_same_prompt_again_feeds_nothing():
    held = Held(FakeEngine())
    held.mark_at = 3
    first = held.prefill([1, 2, 3]).tolist()
    held.step(4)
    assert held.prefill([1, 2, 3]).tolist() == first
    assert held.prefilled == 0
    held.step(5)
    assert held.engine.ids == (1, 2, 3, 5)


def test_after_an_interruption_the_state_is_not_believed():
    held = Held(FakeEngine())
    held.prefill([1, 2])
    held.engine.fail_next = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        held.step(3)
    assert held.prefill([1, 2, 3]).tolist() == fresh([1, 2, 3]).tolist()
    assert held.engine.ids == (1, 2, 3)


def test_logits_of_all_positions_leave_nothing_to_reuse():
    held = Held(FakeEngine())
    held.prefill([1, 2])
    assert held.logits([5, 6]).shape == (2, 16)
    held.prefill([1, 2, 3])
    assert held.engine.ids == (1, 2, 3)


class AnyHistory(RuleBasedStateMachine):
    """However turns, answers and interruptions follow each other, logits are those of a fresh engine."""

    def __init__(self):
        super().__init__()
        self.held, self.ids, self.shown = Held(FakeEngine(ctx=10_000)), [], None

    @rule(keep=st.integers(0, 12), new=st.lists(st.integers(0, 2), min_size=1, max_size=3), mark=st.data())
    def prefill(self, keep, new, mark):
        self.ids = [*self.ids[:keep], *new]
        self.held.mark_at = mark.draw(st.none() | st.integers(1, len(self.ids)))
        self.shown = self.held.prefill(self.ids)

    @precondition(lambda self: self.shown is not None)
    @rule()
    def again(self):
        self.shown = self.held.prefill(self.ids)

    @precondition(lambda self: self.shown is not None)
    @rule(token=st.integers(0, 2))
    def step(self, token):
        self.ids = [*self.ids, token]
        self.shown = self.held.step(token)

    @precondition(lambda self: self.shown is not None)
    @rule(token=st.integers(0, 2), prefilling=st.booleans())
    def interrupted(self, token, prefilling):
        self.held.engine.fail_next = KeyboardInterrupt()
        self.held.mark_at = None
        try:
            self.held.prefill([*self.ids, token, 0]) if prefilling else self.held.step(token)
        except KeyboardInterrupt:
            self.shown = None

    @invariant()
    def as_if_fresh(self):
        if self.shown is not None:
            assert np.array_equal(self.shown, fresh(self.ids))


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestAnyHistory = AnyHistory.TestCase
