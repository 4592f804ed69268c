"""Prompts that are far too long are refused before anybody cuts them into tokens."""

from __future__ import annotations

import pytest

from qcli import LLM
from qcli.errors import ContextOverflowError, UsageError
from qcli.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def llm(storyteller):
    with LLM(storyteller, ctx=256, threads=1, progress=None) as llm:
        yield llm


def refused(ask, monkeypatch):
    """The error of a text that nobody encodes."""
    monkeypatch.setattr(Tokenizer, "encode_in_pieces", None)
    with pytest.raises(ContextOverflowError) as caught:
        ask()
    return caught.value


@pytest.mark.parametrize("content", ["tale " * 3_000_000, [{"type": "text", "text": "tale " * 3_000_000}]])
def test_a_text_of_more_characters_than_any_context_holds(llm, monkeypatch, content):
    talk = [{"role": "user", "content": content}]
    problem = refused(lambda: "".join(llm.chat(talk)), monkeypatch)
    assert problem.message == "the prompt has 15,000,000 characters, and the context holds 256 tokens"
    assert problem.hint == "give a shorter prompt: the model was made for 2,048 tokens"


def test_a_plain_text_that_a_larger_context_could_hold(llm, monkeypatch):
    text = " " * (max(16, llm.tokenizer.longest_token) * 256 + 1)
    assert "--ctx" in refused(lambda: "".join(llm.generate(text)), monkeypatch).hint


def test_several_at_a_time_too(llm):
    results = list(llm.batch(["x" * 10_000_000, "Once"], max_tokens=1))
    assert isinstance(results[0].problem, ContextOverflowError)
    assert "characters" in results[0].problem.message
    assert results[1].problem is None


def test_what_may_fit_is_counted_in_tokens(llm):
    text = max((llm.tokenizer.decode([id]) for id in range(llm.tokenizer.vocab_size)), key=len) * 200
    assert len(text) == 200 * llm.tokenizer.longest_token
    assert len(llm.tokenize(text)) <= 256
    assert "".join(llm.generate(text, max_tokens=1)) is not None
    with pytest.raises(ContextOverflowError, match="tokens, and the context holds 256"):
        "".join(llm.generate("A fox. " * 300))


def test_a_message_that_is_none(llm):
    with pytest.raises(UsageError, match="is no message"):
        llm.chat(["hm", {"role": "user", "content": "Hi"}])
