"""Answers of the embedded model that are held to a form: they have it, with thoughts and without, cut and gone on with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pytest
from fake_engine import TellingEngine
from jsonschema import Draft202012Validator
from random_schemas import random_schema

from qcli import LLM
from qcli.constraints.constraint import constraint
from qcli.errors import QcliError, UsageError
from qcli.runtime.engine import Engine
from qcli.sessions.conversation import Conversation
from qcli.text.chat_template import ChatTemplate
from qcli.text.think_tags import find_think_tags
from qcli.text.thoughts import Thought

ASKED = "Tell me of a cat."
USER = {"role": "user", "content": ASKED}
THINKS = """\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '\\n</think>\\n\\n' }}{% endif %}{% endif %}
"""
CAT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 30},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMAS = 24  # tests/fuzz/fuzz_schemas.py tries more


@pytest.fixture(scope="module")
def llm():
    with LLM(threads=1, constrained=True) as llm:
        yield llm


@pytest.fixture(scope="module")
def thinker():
    with LLM(threads=1, constrained=True) as llm:
        llm.template = ChatTemplate(THINKS)
        llm.think_tags = find_think_tags(llm.tokenizer, THINKS)
        yield llm


def text_of(answer):
    return "".join(piece for piece in answer if not isinstance(piece, Thought))


def test_answers_fit_random_schemas(llm):
    whole = 0
    for seed in range(SCHEMAS):
        schema = random_schema(seed)
        try:
            wanted = constraint(schema=schema)
        except UsageError as problem:
            assert problem.hint  # noqa: PT017
            continue
        text = text_of(llm.chat([USER], constraint=wanted, max_tokens=200, seed=seed))
        if llm.stats.fits:
            whole += 1
            Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(json.loads(text))
        else:
            assert llm.stats.finish_reason == "length"
    assert whole > SCHEMAS / 2


@pytest.mark.parametrize("think", ["on", "off", 5])
def test_thoughts_and_schemas_together(thinker, think):
    for seed in range(6):
        schema = random_schema(seed)
        answer = thinker.chat([USER], schema=schema, think=think, max_tokens=300, seed=seed)
        pieces = []
        for piece in answer:
            pieces.append(piece)
            if think == "on" and len(pieces) == 7:
                thinker.end_thought()  # which this model, that was not taught to think, does not do itself
        thoughts = "".join(piece for piece in pieces if isinstance(piece, Thought))
        text = "".join(piece for piece in pieces if not isinstance(piece, Thought))
        assert bool(thoughts.strip()) == (think != "off")
        if thinker.stats.fits:
            Draft202012Validator(schema).validate(json.loads(text))
        assert thinker.stats.fits or thinker.stats.finish_reason == "length"


def test_a_form_that_allows_everything_changes_nothing(llm):
    plain = llm.generate("Once upon a time", seed=1, max_tokens=30)
    told = "".join(plain)
    held = llm.generate("Once upon a time", seed=1, max_tokens=30, regex="(?s:.*)")
    assert "".join(held) == told
    assert held.ids == plain.ids


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"seed": 3}])
def test_an_answer_that_was_cut_goes_on_to_the_same_ids(llm, sampling):
    whole = llm.chat([USER], schema=CAT, temperature=0)
    list(whole)
    talk = Conversation(llm, schema=CAT, **sampling)
    for at in (1, 5):
        list(talk.ask(ASKED, max_tokens=at))
        assert talk.llm.stats.fits is False
        list(talk.resume_answer(max_tokens=200))
        last = talk.log.branch()[-1]
        assert talk.llm.stats.fits
        Draft202012Validator(CAT).validate(json.loads(last.text))
        if "temperature" in sampling and at == 1:
            assert list(last.ids) == whole.ids


def test_what_is_in_the_state_is_what_was_said(llm):
    answer = llm.chat([USER], schema=CAT, seed=2)
    text = text_of(answer)
    assert llm.detokenize(answer.ids) == text
    again = [USER, {"role": "assistant", "content": text, "ids": answer.ids}, {"role": "user", "content": "And?"}]
    list(llm.chat(again, max_tokens=1))
    assert llm.stats.cached_tokens >= len(answer.ids)


def test_what_is_cut_does_not_fit(llm):
    list(llm.chat([USER], schema=CAT, max_tokens=3))
    assert (llm.stats.fits, llm.stats.finish_reason) == (False, "length")
    list(llm.chat([USER], schema=CAT, stop='"age"'))
    assert (llm.stats.fits, llm.stats.finish_reason) == (False, "stop")
    list(llm.chat([USER], choices=["yes"], max_tokens=3))
    assert (llm.stats.fits, llm.stats.finish_reason) == (True, "stop")
    list(llm.chat([USER], max_tokens=3))
    assert llm.stats.fits is None


@pytest.mark.parametrize("think", [None, "off"])
def test_a_model_that_opens_its_thought_itself(monkeypatch, storyteller_tokenizer, think):
    encode, answer = storyteller_tokenizer.encode_after, '"yes"'
    ids = [*encode(f"<think>hm</think>\n{answer}"), min(storyteller_tokenizer.end_ids)]
    monkeypatch.setattr(Engine, "load", lambda *_, **__: TellingEngine(storyteller_tokenizer.vocab_size, 256, ids))
    with LLM() as llm:
        llm.think_tags = find_think_tags(llm.tokenizer, "<think></think>")
        pieces = [*llm.chat([USER], schema={"const": "yes"}, think=think)]
        thoughts = "".join(piece for piece in pieces if isinstance(piece, Thought))
        assert thoughts.strip() == ("" if think else "<think>hm</think>")
        assert "".join(piece for piece in pieces if not isinstance(piece, Thought)) == answer
        assert llm.stats.fits


class Colour(Enum):
    BLACK = "black"
    WHITE = "white"


@dataclass
class Cat:
    name: str
    colour: Colour
    age: int | None = None


def test_an_answer_as_an_object(llm):
    cat = llm.parse(ASKED, Cat, seed=1, max_tokens=200)
    assert isinstance(cat, Cat)
    assert isinstance(cat.colour, Colour)
    assert llm.parse([USER], bool, seed=1) in (True, False)
    with pytest.raises(QcliError, match="cut before its end"):
        llm.parse(ASKED, Cat, max_tokens=1)
    with pytest.raises(UsageError, match="has no JSON"):
        llm.parse(ASKED, complex)


def test_log_probabilities_are_those_of_the_logits(llm):
    answer = llm.generate("Once upon a time", seed=4, max_tokens=4, temperature=2.0, logprobs=3, repeat_penalty=1.5)
    list(answer)
    ids = llm.tokenizer.prompt("Once upon a time")
    logits = llm.logits(ids + answer.ids)[len(ids) - 1 : -1].astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert [entry["id"] for entry in answer.logprobs] == answer.ids
    for row, entry in zip(expected, answer.logprobs, strict=True):
        assert entry["logprob"] == pytest.approx(row[entry["id"]], abs=0.05)  # a prompt's last bits are not a step's
        assert [top["id"] for top in entry["top_logprobs"]] == np.argsort(-row)[:3].tolist()
        assert bytes(entry["bytes"]).decode("utf-8", "replace") == entry["token"]


def test_log_probabilities_are_of_the_answer_alone(thinker):
    answer = thinker.chat([USER], schema=CAT, think=5, seed=4, logprobs=0, max_tokens=200)
    text = text_of(answer).lstrip("\n")
    assert "".join(entry["token"] for entry in answer.logprobs) == text
    assert all(entry["top_logprobs"] == [] for entry in answer.logprobs)


@pytest.mark.parametrize(
    "wrong", [{"logprobs": 21}, {"logprobs": -1}, {"logprobs": 1.5}, {"schema": CAT, "regex": "a"}]
)
def test_options_that_cannot_be_meant(llm, wrong):
    with pytest.raises(UsageError):
        llm.chat([USER], **wrong)
