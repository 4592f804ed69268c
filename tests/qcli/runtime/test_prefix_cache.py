"""The prefix cache: each turn feeds only what is new, and never answers from a wrong state."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from fake_engine import FakeEngine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qcli.errors import ModelFileError, QcliError
from qcli.runtime.checkpoint import Marks
from qcli.runtime.prefix_cache import PrefixCache


def at(*positions):
    return Marks(frozenset(positions))


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
    cache.prefill([1, 2, 3], marks=at(*[3]))
    cache.step(4)
    assert cache.prefill([1, 2, 3, 9, 9]).tolist() == fresh([1, 2, 3, 9, 9]).tolist()
    assert cache.engine.fed == [3, 2]


def test_a_checkpoint_inside_the_prompt_leaves_out_what_will_not_last():
    cache = PrefixCache(FakeEngine())
    cache.prefill([1, 2, 3], marks=at(*[2]))
    cache.prefill([1, 2, 8, 8, 8])
    assert cache.engine.fed == [2, 1, 3]


def test_the_same_prompt_again_feeds_nothing():
    cache = PrefixCache(FakeEngine())
    first = cache.prefill([1, 2, 3], marks=at(*[3])).tolist()
    cache.step(4)
    assert cache.prefill([1, 2, 3]).tolist() == first
    assert cache.prefilled == 0
    cache.step(5)
    assert cache.engine.ids == (1, 2, 3, 5)


def test_after_an_error_the_state_is_not_believed():
    cache = PrefixCache(FakeEngine())
    cache.prefill([1, 2])
    cache.engine.fail_next = ModelFileError("unreadable", "try again")
    with pytest.raises(ModelFileError):
        cache.step(3)
    assert cache.prefill([1, 2, 3]).tolist() == fresh([1, 2, 3]).tolist()
    assert cache.prefilled == 3


@pytest.mark.parametrize("ids", [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 9]])
def test_after_an_interruption_what_is_in_the_state_is_not_read_again(ids):
    cache = PrefixCache(FakeEngine())
    cache.prefill([1, 2])
    cache.engine.fail_next = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        cache.prefill([1, 2, 3, 4, 5])
    cache.prefill([1, 2, 3, 8])
    assert cache.prefilled == 1
    cache.prefill([1, 2, 3, 8, 4], marks=at(*[4, 5]))
    assert cache.prefilled == 1


def test_a_text_whose_logits_are_not_known_is_gone_back_to_and_on_from():
    cache = PrefixCache(FakeEngine())
    cache.engine.fail_next = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        cache.prefill([1, 2, 3])
    kept = cache.checkpoint()
    assert kept.logits is None
    cache.prefill([5, 6])
    cache.restore(kept)
    assert cache.engine.ids == kept.ids == (1,)
    cache.prefill([1, 2])
    assert cache.prefilled == 1
    cache.restore(kept)
    assert cache.prefill([1]).tolist() == fresh([1]).tolist()


def test_no_checkpoint_is_made_of_what_an_error_has_left():
    cache = PrefixCache(FakeEngine())
    empty = cache.checkpoint()
    cache.prefill([1, 2])
    cache.engine.fail_next = ModelFileError("unreadable", "try again")
    with pytest.raises(ModelFileError):
        cache.step(3)
    with pytest.raises(QcliError, match="nothing is known"):
        cache.checkpoint()
    cache.restore(empty)
    assert cache.engine.ids == ()
    assert cache.checkpoint().ids == ()


def test_logits_of_all_positions_leave_nothing_to_reuse():
    cache = PrefixCache(FakeEngine())
    cache.prefill([1, 2])
    assert cache.logits([5, 6]).shape == (2, 16)
    cache.prefill([1, 2, 3])
    assert cache.engine.ids == (1, 2, 3)


def test_every_branch_is_gone_back_to_without_reading():
    cache, texts = PrefixCache(FakeEngine()), {}
    for ids in ([1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 6, 7], [1, 2, 3, 6, 8, 9], [5]):
        texts[tuple(ids)] = cache.prefill(ids, marks=at(*[3, len(ids)])).copy()
    for ids in ([1, 2, 3, 4, 5], [1, 2, 3, 6, 8, 9], [1, 2, 3], [5], [1, 2, 3, 6, 7], [1, 2, 3, 4, 5]):
        assert np.array_equal(cache.prefill(ids), texts[tuple(ids)])
        assert cache.prefilled == 0
        assert cache.engine.ids == tuple(ids)


def test_a_text_without_recurrent_states_is_taken_up_at_marks_and_multiples_of_a_chunk():
    cache = PrefixCache(FakeEngine(recurrent=False))
    cache.prefill(range(20))
    found = []
    for ids, marks in ([*range(19), 1], []), ([*range(18), 2], [17]), ([*range(17), 3], [18]), ([1], []):
        cache.prefill(ids, marks=at(*marks))
        found.append(cache.prefilled)
    assert found == [4, 2, 2, 1]


def test_the_least_recently_used_is_given_up_first():
    engine = FakeEngine()
    cache = PrefixCache(engine)
    cache.kept.most_bytes = 3 * (8 + 4 * engine.vocab_size + 8 * 4 + 64)
    for last in range(4):
        cache.prefill([1, 2, 3, last], marks=at(*[4]))
    assert cache.kept.n_bytes <= cache.kept.most_bytes
    cache.prefill([1, 2, 3, 0])
    assert cache.prefilled == 4
    cache.prefill([1, 2, 3, 3])
    assert cache.prefilled == 0


def test_twenty_forks_of_a_long_text_stay_under_the_limit():
    engine = FakeEngine(ctx=600)
    cache = PrefixCache(engine)
    cache.kept.most_bytes = 20_000
    text = [id % 7 for id in range(400)]
    cache.prefill(text, marks=at(*[400]))
    for fork in range(20):
        cache.prefill([*text, *[fork % 5] * (fork + 1), 9, 9], marks=at(*[400, 401 + fork]))
        assert cache.kept.n_bytes <= 20_000
        assert cache.prefilled <= 402 if fork else 22


class AnyHistory(RuleBasedStateMachine):
    """However turns, answers, interruptions and errors follow each other, logits are those of a fresh engine."""

    def __init__(self):
        super().__init__()
        self.cache, self.ids, self.shown = PrefixCache(FakeEngine(ctx=10_000, recurrent=self.recurrent)), [], None

    recurrent = True

    @initialize(most=st.sampled_from([0, 1000, 1 << 20]))
    def limit(self, most):
        self.cache.kept.most_bytes = most

    @rule(keep=st.integers(0, 12), new=st.lists(st.integers(0, 2), min_size=1, max_size=3), where=st.data())
    def prefill(self, keep, new, where):
        self.ids = [*self.ids[:keep], *new]
        marks = where.draw(st.lists(st.integers(1, len(self.ids)), max_size=3))
        self.shown = self.cache.prefill(self.ids, marks=at(*marks))

    @precondition(lambda self: self.shown is not None)
    @rule()
    def again(self):
        self.shown = self.cache.prefill(self.ids)

    @precondition(lambda self: self.shown is not None)
    @rule(token=st.integers(0, 2))
    def step(self, token):
        self.ids = [*self.ids, token]
        self.shown = self.cache.step(token)

    @rule()
    def checkpoint(self):
        if self.cache.whole:
            self.cache.checkpoint()

    @precondition(lambda self: self.shown is not None)
    @rule(token=st.integers(0, 2), prefilling=st.booleans(), problem=st.sampled_from([KeyboardInterrupt, OSError]))
    def fails(self, token, prefilling, problem):
        self.cache.engine.fail_next = problem()
        with suppress(KeyboardInterrupt, OSError):
            self.cache.prefill([*self.ids, token, 0]) if prefilling else self.cache.step(token)
        self.cache.engine.fail_next = self.shown = None

    @invariant()
    def as_if_fresh(self):
        if self.shown is not None:
            assert np.array_equal(self.shown, fresh(self.ids))


class AnyHistoryWithoutRecurrentStates(AnyHistory):
    recurrent = False


for machine in (AnyHistory, AnyHistoryWithoutRecurrentStates):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestAnyHistory = AnyHistory.TestCase
TestAnyHistoryWithoutRecurrentStates = AnyHistoryWithoutRecurrentStates.TestCase
