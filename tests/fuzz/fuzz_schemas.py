"""Random schemas by the hundred: every answer that is whole fits, every schema that is refused says why.

Not part of the suite, as it takes a minute: python -m pytest -n0 -s tests/fuzz/fuzz_schemas.py
QCLI_FUZZ_MODEL names another model than the embedded one, QCLI_FUZZ_SCHEMAS another number than 300.
"""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest
from jsonschema import Draft202012Validator
from random_schemas import random_schema

from qcli import LLM
from qcli.constraints.constraint import Constraint, constraint
from qcli.errors import UsageError
from qcli.text.chat_template import ChatTemplate
from qcli.text.think_tags import find_think_tags
from qcli.text.thoughts import Thought

MODEL = os.environ.get("QCLI_FUZZ_MODEL")
SCHEMAS = int(os.environ.get("QCLI_FUZZ_SCHEMAS", "300"))
MOST = 400  # tokens of an answer
USER = {"role": "user", "content": "Tell me of a cat, as JSON."}
THINKS = """\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '\\n</think>\\n\\n' }}{% endif %}{% endif %}
"""


@pytest.fixture
def llm():
    with LLM(MODEL, threads=1, ctx=2048, constrained=True) as llm:
        yield llm


def checked(seed: int, told: Counter[str]) -> tuple[dict, Constraint] | None:
    """A random schema that is not refused."""
    schema = random_schema(seed)
    Draft202012Validator.check_schema(schema)
    try:
        wanted = constraint(schema=schema)
    except UsageError as problem:
        told[f"refused: {problem.message.rpartition(': ')[2]}"] += 1
        return None
    assert wanted
    return schema, wanted


def answered(
    llm: LLM, schema: dict, wanted: Constraint, told: Counter[str], think: str | int | None, seed: int
) -> None:
    """Have a schema answered, and what is whole validated."""
    pieces = []
    for piece in llm.chat([USER], constraint=wanted, max_tokens=MOST, seed=seed, think=think):
        pieces.append(piece)
        if think == "on" and len(pieces) == 40:
            llm.end_thought()  # a model that was not taught to think does not end one
    text = "".join(piece for piece in pieces if not isinstance(piece, Thought))
    if llm.stats.fits:
        told["whole"] += 1
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(json.loads(text))
    else:
        assert llm.stats.finish_reason == "length"
        told["cut"] += 1


def test_answers_fit(llm):
    told: Counter[str] = Counter()
    for seed in range(SCHEMAS):
        if found := checked(seed, told):
            answered(llm, *found, told, None, seed)
    print(f"\n{llm.name}: {dict(told)}")
    assert told["whole"] > told["cut"]


@pytest.mark.parametrize("think", ["on", "off", 20])
def test_answers_fit_with_thoughts(llm, think):
    if not llm.thinking.thinks:
        llm.template = ChatTemplate(THINKS)
        llm.think_tags = find_think_tags(llm.tokenizer, THINKS)
        del llm.thinking
    told: Counter[str] = Counter()
    for seed in range(1000, 1050):
        if found := checked(seed, told):
            answered(llm, *found, told, think, seed)
    print(f"\n{llm.name}, think {think}: {dict(told)}")
    assert told["whole"] > told["cut"]
