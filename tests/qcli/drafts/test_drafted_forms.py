"""Answers that are held to a form, and calls of tools, with drafts: those without, to the bit, whatever is guessed."""

from __future__ import annotations

from functools import cache

import pytest
from calling_engine import TEMPLATE
from random_schemas import random_schema
from wrong_guesses import Liar

from qcli import LLM
from qcli.constraints.constraint import constraint
from qcli.drafts import drafted_steps
from qcli.errors import UsageError
from qcli.text.chat_template import ChatTemplate
from qcli.tools.call import ToolCall
from qcli.tools.tool import checked_tools

WHO = ["fox", "crow", "king", "queen", "mouse", "lion", "girl", "boy", "cat", "dog"]
PROMPTS = [f"Tell me of a {who}." for who in WHO] + [
    f"Who is the {who}'s friend, and where do they live?" for who in WHO
]
SAMPLINGS = ({"temperature": 0}, {"temperature": 0.9, "repeat_penalty": 1.1})
CAT = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 30}},
    "required": ["name", "age"],
}
CITY = {"properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer"}}, "required": ["city"]}
TOOLS = checked_tools([{"name": "weather", "parameters": CITY}, {"name": "now"}])
LIST = 'root ::= "- " item ("\\n- " item)*\nitem ::= [a-z ]{3,20}'


def schema_of(seed):
    """A random one that can be kept to."""
    try:
        return {"constraint": constraint(schema=random_schema(seed))}
    except UsageError:
        return {"schema": CAT}


@cache
def form_of(i):
    """Of the i-th prompt: schemas, a grammar, a pattern, tools that must be called or may be."""
    forms = (
        lambda: {"constraint": constraint(schema=CAT)},
        lambda: schema_of(i),
        lambda: {"constraint": constraint(grammar=LIST)},
        lambda: {"constraint": constraint(regex=r"(yes|no): [a-z ]{5,40}\.")},
        lambda: {"tools": TOOLS, "tool_choice": ("required", "weather", "auto")[i // 5 % 3]},
    )
    return forms[i % len(forms)]()


def answers(draft):
    """All answers, with their calls, and the numbers of tokens."""
    with LLM(draft=draft, threads=1, ctx=512, constrained=True) as llm:
        llm.template = ChatTemplate(TEMPLATE)
        guessed = 0
        for i, prompt in enumerate(PROMPTS):
            for sampling in SAMPLINGS:
                said = [{"role": "user", "content": prompt}]
                pieces = list(
                    llm.chat(
                        said, max_tokens=90 if i % 5 == 4 else 30, seed=i, stop_loops=False, **form_of(i), **sampling
                    )
                )
                calls = [(piece.name, piece.arguments) for piece in pieces if isinstance(piece, ToolCall)]
                guessed += llm.stats.guessed
                yield "".join(map(str, pieces)), calls, llm.stats.new_tokens, llm.stats.fits
        assert guessed or draft in ("off", "auto")


@pytest.fixture(scope="module")
def expected():
    found = list(answers("off"))
    assert len(found) == 2 * len(PROMPTS)
    assert sum(len(calls) for _, calls, *_ in found) > 2
    assert sum(bool(fits) for *_, fits in found) > 5
    return found


@pytest.mark.parametrize("draft", ["auto", "mtp", "lookup", 4])
def test_the_same_answers(draft, expected):
    assert list(answers(draft)) == expected


class LiarOfForms(Liar):
    """Also what the form forbids, and ids that end a turn."""

    first, step = 0, 7


def test_wrong_guesses_at_every_token(expected, monkeypatch):
    monkeypatch.setattr(drafted_steps, "PromptLookup", LiarOfForms)
    assert list(answers(7)) == expected
