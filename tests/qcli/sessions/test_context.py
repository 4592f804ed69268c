"""Conversations that outgrow their context."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine, TellingEngine, hashed

from qcli import LLM
from qcli.errors import ContextOverflowError, UsageError
from qcli.runtime.engine import Engine
from qcli.sessions import context
from qcli.sessions.conversation import Conversation
from qcli.sessions.library import Library
from qcli.sessions.session import Message

CTX = 96


def talking(roles, **last):
    """A branch of messages with these roles: s, u, a."""
    names = {"s": "system", "u": "user", "a": "assistant"}
    branch = [Message(i, i - 1 or None, names[role], f"{role}{i}") for i, role in enumerate(roles, 1)]
    return [*branch[:-1], Message(len(roles), len(roles) - 1, names[roles[-1]], "last", **last)]


def test_prompts_begin_with_the_system_message_and_may_lack_the_oldest_turns():
    branch = talking("suasuau")
    assert [m["content"] for m in context.prompt(branch)] == ["s4", "u2", "a3", "u5", "a6", "last"]
    assert [m["content"] for m in context.prompt(branch, 2)] == ["s4", "u5", "a6", "last"]
    assert context.cuts(branch) == [0, 2, 4]
    assert context.cuts(talking("u")) == [0]


@pytest.mark.parametrize(("figures", "found"), [({"left_out": 2, "ctx": 9}, 2), ({"left_out": 2, "ctx": 8}, 0),
    ({"left_out": 1, "ctx": 9}, 0), ({"left_out": "2", "ctx": 9}, 0), ({}, 0)])  # fmt: skip
def test_what_was_left_out_stays_so_in_the_same_context(figures, found):
    assert context.left_out_before(talking("uaua", figures=figures), 9) == found


def test_half_of_the_context_is_freed_at_once():
    branch = talking("uauauau")
    sizes = {0: 80, 2: 60, 4: 40, 6: 20}
    assert context.fitting(branch, 0, 100, 20, sizes.get) == 0
    assert context.fitting(branch, 0, 100, 21, sizes.get) == 4
    assert context.fitting(branch, 4, 100, 20, sizes.get) == 4
    assert context.fitting(branch, 0, 30, 20, sizes.get) == 6
    assert context.fitting(talking("u"), 0, 1, 1, lambda cut: 99) == 0


def test_a_rule_that_is_not_known():
    with pytest.raises(UsageError, match="stop or oldest"):
        context.checked("newest")


@pytest.fixture
def begin(monkeypatch, storyteller_tokenizer):
    """Make a conversation in a context of CTX tokens, with a model that ends its answers, or never does."""
    answer = [*storyteller_tokenizer.encode("A cat sat."), min(storyteller_tokenizer.end_ids)]
    models = []

    def make(ctx_full, ends=True, **options):
        size = storyteller_tokenizer.vocab_size
        engine = TellingEngine(size, CTX, answer) if ends else FakeEngine(size, CTX, hashed(size))
        monkeypatch.setattr(Engine, "load", lambda *_, **__: engine)
        models.append(LLM())
        told: list[str] = []
        return Conversation(models[-1], ctx_full=ctx_full, tell=told.append, temperature=0, **options), told

    yield make
    for model in models:
        model.close()


def test_fifty_turns_with_the_oldest_left_out(begin):
    talk, told = begin("oldest", system="Rhyme.")
    for i in range(50):
        assert "".join(talk.ask(f"Tale {i}")) == "A cat sat."
        prompt = talk.llm.detokenize(talk.llm.engine.ids)
        assert prompt.startswith("system\nRhyme.")
        assert f"Tale {i}\n" in prompt
    assert talk.turns == 50
    assert 5 < len([remark for remark in told if "no longer sees" in remark]) < 30
    assert talk.llm.stats.prompt_tokens < CTX * 3 // 4


def test_fifty_turns_until_nothing_fits(begin):
    talk, told = begin("stop")
    refused = 0
    for i in range(50):
        try:
            "".join(talk.ask(f"Tale {i}"))
        except ContextOverflowError:
            refused += 1
    assert refused + talk.turns == 50
    assert 0 < talk.turns < 10
    assert len([remark for remark in told if "nearly full" in remark]) <= 1
    talk.undo(2)
    assert "".join(talk.ask("Hi")) == "A cat sat."


@pytest.mark.parametrize("ctx_full", ["stop", "oldest"])
def test_a_message_that_is_too_long_by_itself_changes_nothing(begin, ctx_full):
    talk, _ = begin(ctx_full)
    "".join(talk.ask("Hi"))
    before = talk.messages
    with pytest.raises(ContextOverflowError):
        "".join(talk.ask("word " * 200))
    assert talk.messages == before
    assert "".join(talk.ask("Ho")) == "A cat sat."


def test_an_answer_that_fills_the_context_is_cut_and_says_so(begin):
    talk, told = begin("stop", ends=False)
    "".join(talk.ask("Hi"))
    assert talk.log.branch()[-1].finish_reason == "length"
    assert told == [f"the answer stops here: the context of {CTX} tokens is full"]
    with pytest.raises(ContextOverflowError):
        "".join(talk.resume_answer())
    talk.undo()
    assert "".join(talk.ask("Hi", max_tokens=4))
    assert told == told[:1]


def test_an_answer_that_fills_the_context_goes_on_without_the_oldest(begin):
    talk, told = begin("oldest", ends=False)
    "".join(talk.ask("One", max_tokens=20))
    "".join(talk.ask("Two", max_tokens=20))
    before = talk.llm.engine.position
    said = "".join(talk.ask("Three"))
    last = talk.log.branch()[-1]
    assert (last.text, last.finish_reason) == (said, "length")
    assert len(last.ids) > CTX - before
    assert last.figures["left_out"] == 4
    assert "the answer stops here" in told[-1]
    "".join(talk.ask("Four", max_tokens=20))
    assert talk.log.branch()[-1].figures["new_tokens"] == 20


def test_what_is_no_longer_seen_stays_so_when_it_is_gone_on_with(begin, tmp_path):
    talk, _ = begin("oldest")
    for i in range(8):
        "".join(talk.ask(f"Tale {i}"))
    left_out = talk.log.branch()[-1].figures["left_out"]
    talk.library = Library(tmp_path)
    talk.save()
    talk.close()
    told: list[str] = []
    later = Conversation(talk.llm, talk.library.open(talk.library.last()), ctx_full="oldest", tell=told.append)
    "".join(later.ask("And?"))
    assert later.log.branch()[-1].figures["left_out"] == left_out > 0
    assert told == []


@pytest.mark.parametrize(
    ("longest", "told"), [(2048, "tokens: --ctx-full oldest"), (4096, "tokens: --ctx gives a larger")]
)
def test_a_larger_context_is_advised_only_where_there_is_one(longest, told):
    assert told in context.nearly_full(2000, 2048, longest, "stop")
    assert context.nearly_full(2048, 2048, longest, "stop") == ""
    assert context.nearly_full(2000, 2048, longest, "oldest").endswith("the oldest turns will be left out")
