"""The prefix cache: each turn feeds only what is new, and never answers from a wrong state."""

from __future__ import annotations

import numpy as np
import pytest
from fake_engine import FakeEngine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qcli.runtime.prefix_cache import PrefixCache


def fresh(ids):
    return FakeEngine(ctx=10_000).prefill(ids)


def test_a_longer_conversation_feeds_only_what_is_new():
    cache = PrefixCache(FakeEngine())
    cache.prefill([1, 2, 3])
    cache.step(4)
    assert cache.prefill([1, 2, 3, 4, 5, 6]).tolist() == fresh([1, 2, 3, 4, 5, 6]).tolist()
    assert cache.engine.fed == [3, 2]
    assert cache.prefilled == 2


def test_another_conversation_begins_anew():
    cache = PrefixCache(FakeEngine())
    cache.prefill([1, 2, 3])
    assert cache.prefill([1, 9, 3, 4]).tolist() == fresh([1, 9, 3, 4]).tolist()
    assert cache.prefilled == 4


def test_a_checkpoint_saves_the_prompt_when_the_answer_reads_differently():
    cache = PrefixCache(FakeEngine())
    cache.checkpoint_at = 3
    cache.prefill([1, 2, 3])
    cache.step(4)
    cache.checkpoint_at = None
    assert cache.prefill([1, 2, 3, 9, 9]).tolist() == fresh([1, 2, 3, 9, 9]).tolist()
    assert cache.engine.fed == [3, 2]


def test_a_checkpoint_inside_the_prompt_leaves_out_what_will_not_last():
    cache = PrefixCache(FakeEngine())
    cache.checkpoint_at = 2
    cache.prefill([1, 2, 3])
    cache.checkpoint_at = None
    cache.prefill([1, 2, 8, 8, 8])
    assert cache.engine.fed == [2, 1, 3]


def test_the_same_prompt_again_feeds_nothing():
    cache = PrefixCache(FakeEngine())
    cache.checkpoint_at = 3
    first = cache.prefill([1, 2, 3]).tolist()
    cache.step(4)
    assert cache.prefill([1, 2, 3]).tolist() == first
    assert cache.prefilled == 0
    cache.step(5)
    assert cache.engine.ids == (1, 2, 3, 5)


def test_after_an_interruption_the_state_is_not_believed():
    cache = PrefixCache(FakeEngine())
    cache.prefill([1, 2])
    cache.engine.fail_next = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        cache.step(3)
    assert cache.prefill([1, 2, 3]).tolist() == fresh([1, 2, 3]).tolist()
    assert cache.engine.ids == (1, 2, 3)


def test_logits_of_all_positions_leave_nothing_to_reuse():
    cache = PrefixCache(FakeEngine())
    cache.prefill([1, 2])
    assert cache.logits([5, 6]).shape == (2, 16)
    cache.prefill([1, 2, 3])
    assert cache.engine.ids == (1, 2, 3)


class AnyHistory(RuleBasedStateMachine):
    """However turns, answers and interruptions follow each other, logits are those of a fresh engine."""

    def __init__(self):
        super().__init__()
        self.cache, self.ids, self.shown = PrefixCache(FakeEngine(ctx=10_000)), [], None

    @rule(keep=st.integers(0, 12), new=st.lists(st.integers(0, 2), min_size=1, max_size=3), at=st.data())
    def prefill(self, keep, new, at):
        self.ids = [*self.ids[:keep], *new]
        self.cache.checkpoint_at = at.draw(st.none() | st.integers(1, len(self.ids)))
        self.shown = self.cache.prefill(self.ids)

    @precondition(lambda self: self.shown is not None)
    @rule()
    def again(self):
        self.shown = self.cache.prefill(self.ids)

    @precondition(lambda self: self.shown is not None)
    @rule(token=st.integers(0, 2))
    def step(self, token):
        self.ids = [*self.ids, token]
        self.shown = self.cache.step(token)

    @precondition(lambda self: self.shown is not None)
    @rule(token=st.integers(0, 2), prefilling=st.booleans())
    def interrupted(self, token, prefilling):
        self.cache.engine.fail_next = KeyboardInterrupt()
        self.cache.checkpoint_at = None
        try:
            self.cache.prefill([*self.ids, token, 0]) if prefilling else self.cache.step(token)
        except KeyboardInterrupt:
            self.shown = None

    @invariant()
    def as_if_fresh(self):
        if self.shown is not None:
            assert np.array_equal(self.shown, fresh(self.ids))


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestAnyHistory = AnyHistory.TestCase
