"""Generation over an engine of a few lines: ends, stop strings, what the state holds."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine, scripted
from hypothesis import given
from hypothesis import strategies as st

from qcli.errors import ContextOverflowError, UsageError
from qcli.runtime.generate import generate_ids, generate_text
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.sampler import Sampler
from qcli.runtime.sampling import Sampling
from qcli.runtime.stats import Stats
from qcli.text.loops import LoopDetector
from qcli.text.stop_strings import StopStrings
from qcli.text.thoughts import AnswerParser
from qcli.text.tokenizer import Tokenizer

PROMPT = [3, 1, 4]
END = frozenset({15})


def greedy(engine):
    return Sampler(Sampling(temperature=0), engine.vocab_size)


def ids(engine, prompt=PROMPT, **limits):
    stats = Stats()
    return list(generate_ids(PrefixCache(engine), prompt, greedy(engine), end_ids=END, stats=stats, **limits)), stats


def answering(*answer, **sizes):
    return FakeEngine(following=scripted(len(PROMPT), answer), **sizes)


def test_an_end_id_ends_and_is_not_given_out():
    given, stats = ids(answering(7, 8, 15))
    assert given == [7, 8]
    assert (stats.finish_reason, stats.prompt_tokens, stats.new_tokens) == ("stop", 3, 2)


def test_an_answer_may_be_nothing():
    given, stats = ids(answering(15))
    assert given == []
    assert (stats.finish_reason, stats.new_tokens, stats.decode_tok_per_s) == ("stop", 0, 0)


def test_max_tokens_ends_with_length_and_spends_no_step_more():
    engine = answering(7)
    given, stats = ids(engine, max_tokens=4)
    assert given == [7] * 4
    assert stats.finish_reason == "length"
    assert engine.position == len(PROMPT) + 3


def test_a_full_context_ends_with_length():
    given, stats = ids(answering(7, ctx=8))
    assert len(given) == 8 - 3 + 1  # the last one needs no room: it is drawn, not fed
    assert stats.finish_reason == "length"


def test_a_prompt_that_fills_the_context_leaves_room_for_one():
    assert ids(answering(7, ctx=3))[0] == [7]


def test_a_prompt_that_does_not_fit_is_refused_with_the_option_to_type():
    with pytest.raises(ContextOverflowError, match="3 tokens, and the context holds 2") as caught:
        ids(answering(7, ctx=2))
    assert "--ctx" in caught.value.hint


def test_a_prompt_that_the_model_was_not_made_for_is_refused_without_one():
    engine = answering(7, ctx=2)
    engine.longest = 2
    with pytest.raises(ContextOverflowError, match="3 tokens") as caught:
        ids(engine)
    assert caught.value.hint == "give a shorter prompt: the model was made for 2 tokens"


def test_figures():
    _, stats = ids(answering(7, 8, 15))
    assert (stats.prefilled_tokens, stats.decode_steps) == (3, 2)
    assert (stats.experts_touched, stats.experts_total) == (5, 32)
    assert stats.gb_per_s == pytest.approx(2 * stats.decode_tok_per_s)
    assert 0 < stats.prefill_s <= stats.ttft_s


def test_figures_in_one_line():
    assert repr(Stats()) == "<Stats: no answer yet>"
    stats = Stats(
        prompt_tokens=9, new_tokens=5, prefilled_tokens=4, prefill_s=0.5, decode_steps=4, decode_s=2, ttft_s=0.6
    )
    figures = "9 prompt tokens, 5 of them cached; 5 new; 8.0 and 2.0 tok/s; TTFT 0.600 s; cancelled"
    assert repr(stats) == f"<Stats: {figures}>"


def test_stopping_early_is_a_cancelled_answer():
    engine, stats = answering(7), Stats()
    tokens = generate_ids(PrefixCache(engine), PROMPT, greedy(engine), stats=stats)
    next(tokens)
    tokens.close()
    assert (stats.finish_reason, stats.experts_touched) == ("cancelled", 5)


def test_penalties_count_the_prompt():
    engine = answering(4)
    sampler = Sampler(Sampling(temperature=0, presence_penalty=200), engine.vocab_size)
    assert next(generate_ids(PrefixCache(engine), PROMPT, sampler)) == 0  # 4 stands in the prompt


@pytest.fixture(scope="module")
def tokenizer(storyteller):
    return Tokenizer.from_gguf(storyteller)


def text(tokenizer, answer, stop=(), loops=None, **limits):
    prompt = tokenizer.encode("Hello")
    script = [*tokenizer.encode(answer, special=False), min(tokenizer.end_ids)]
    engine = FakeEngine(tokenizer.vocab_size, 4096, scripted(len(prompt), script))
    stats = Stats()
    ids = generate_ids(PrefixCache(engine), prompt, greedy(engine), None, tokenizer.end_ids, stats, **limits)
    pieces = list(generate_text(ids, AnswerParser(tokenizer), StopStrings(stop), stats, [], loops))
    assert all(pieces)
    return pieces, stats


def test_text_comes_in_whole_characters(tokenizer):
    answer = "Zażółć 你好 🧑‍🚀 done"
    pieces, stats = text(tokenizer, answer)
    assert "".join(pieces) == answer
    assert not any("\ufffd" in piece for piece in pieces)
    assert stats.finish_reason == "stop"


def test_a_stop_string_ends_the_text_before_it(tokenizer):
    pieces, stats = text(tokenizer, "One day.\n\nUser: more", stop=["\nUser:", "never"])
    assert "".join(pieces) == "One day.\n"
    assert stats.finish_reason == "stop"


def test_what_only_begins_like_a_stop_string_is_shown_in_the_end(tokenizer):
    assert "".join(text(tokenizer, "wait, User", stop=["User:"])[0]) == "wait, User"


def test_a_loop_ends_the_text_if_somebody_looks_for_it(tokenizer):
    sentence = "The cat sat on the mat and it looked at the dog again. "
    pieces, stats = text(tokenizer, sentence * 20, loops=LoopDetector())
    assert "".join(pieces).count("The cat") in range(3, 7)
    assert stats.finish_reason == "loop"
    pieces, stats = text(tokenizer, sentence * 20)
    assert ("".join(pieces), stats.finish_reason) == (sentence * 20, "stop")


def test_a_stop_string_cannot_be_empty(tokenizer):
    with pytest.raises(UsageError):
        text(tokenizer, "x", stop=[""])


letters = st.text("ab", max_size=12)


@given(st.lists(letters, max_size=6), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_the_gate_shows_all_before_the_first_stop_string_however_the_text_is_cut(pieces, stop):
    whole, strings = "".join(pieces), StopStrings(stop)
    shown = "".join([*map(strings.push, pieces), strings.flush()])
    ends = [(end, end - len(text)) for text in stop for end in range(len(whole) + 1) if whole[:end].endswith(text)]
    assert shown == (whole[: min(ends)[1]] if ends else whole)
    assert strings.found == bool(ends)


@given(letters, st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_the_gate_holds_back_no_more_than_it_must(text, stop):
    strings = StopStrings(stop)
    shown = strings.push(text)
    if not strings.found:
        pending = text[len(shown) :]
        assert not pending or any(string.startswith(pending) for string in stop)
