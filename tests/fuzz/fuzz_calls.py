"""Calls of random tools by the hundred: the embedded model's, and those of eight notations drawn at random; all fit.

Not part of the suite, as it takes a minute: python -m pytest -n0 -s tests/fuzz/fuzz_calls.py
QCLI_FUZZ_MODEL names another model than the embedded one, whose template need not know of tools; QCLI_FUZZ_ANSWERS is how
many it gives in each notation, if not 100.
"""

from __future__ import annotations

import os
import random

import jsonschema
import pytest
from calling_engine import TEMPLATE
from calling_models import FAMILIES, Model, random_tools

from qcli import LLM
from qcli.text.chat_template import ChatTemplate
from qcli.tools.call import ToolCall

MODEL = os.environ.get("QCLI_FUZZ_MODEL")
ANSWERS = int(os.environ.get("QCLI_FUZZ_ANSWERS", "100"))
XML = "{#<function=#}"  # in a template: calls are written so
USER = {"role": "user", "content": "What is the weather?"}


def check(call: ToolCall, tools, choice: str) -> None:
    assert choice in ("required", call.name)
    jsonschema.validate(call.arguments, {**tools.get(call.name).parameters, "additionalProperties": False})


@pytest.mark.parametrize("template", [TEMPLATE, XML + TEMPLATE], ids=["json", "xml"])
def test_calls_of_a_model(template):
    whole = cut = calls = 0
    with LLM(MODEL, threads=1, constrained=True) as llm:
        llm.template = ChatTemplate(template)
        for seed in range(ANSWERS):
            chance = random.Random(seed)
            tools = random_tools(chance)
            choice = chance.choice(["required", *tools.names])
            answer = llm.chat([USER], tools=tools, tool_choice=choice, seed=seed, temperature=1.0, max_tokens=500)
            found = [piece for piece in answer if isinstance(piece, ToolCall)]
            assert found or llm.stats.finish_reason == "length"
            whole, cut = whole + bool(found), cut + (not found)
            for call in found:
                check(call, tools, choice)
            calls += len(found)
    print(f"{whole} answers with {calls} calls, {cut} cut at 500 tokens")


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_of_every_notation(tmp_path, family):
    model = Model(tmp_path, family)
    for seed in range(100):
        chance = random.Random(seed)
        tools = random_tools(chance)
        choice = chance.choice(["required", *tools.names])
        (first, *_) = pieces = model.said(tools, choice, chance)
        assert isinstance(first, ToolCall), (seed, pieces)
        check(first, tools, choice)
