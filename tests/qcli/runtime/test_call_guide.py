"""Calls that are held to their tools: whatever a model would rather say, what comes is a call, and fits."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import pytest
from calling_models import FAMILIES, Model, random_tools

from qcli.runtime.call_guide import usable
from qcli.text.thoughts import Thought
from qcli.tools.call import ToolCall
from qcli.tools.tool import checked_tools


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("guide"), request.param)


def test_calls_drawn_from_random_tools_all_fit(model: Model) -> None:
    """Their names are among those that were allowed (tests/fuzz/fuzz_calls.py draws more of them)."""
    for seed in range(4):
        chance = random.Random(seed)
        tools = random_tools(chance)
        choice = chance.choice(["required", *tools.names])
        (first, *_) = pieces = model.said(tools, choice, chance)
        assert isinstance(first, ToolCall), (seed, pieces)
        assert choice in ("required", first.name)
        tool = tools.get(first.name)
        assert tool is not None
        jsonschema.validate(first.arguments, {**tool.parameters, "additionalProperties": False})


def test_a_call_that_the_model_begins_is_held_too(model: Model) -> None:
    tools = checked_tools(
        [{"name": "get", "parameters": {"properties": {"n": {"type": "boolean"}}, "required": ["n"]}}]
    )
    begun = model.notation.begin
    call, *_ = [piece for piece in model.said(tools, "auto", random.Random(1), begun) if isinstance(piece, ToolCall)]
    assert (call.name, type(call.arguments["n"])) == ("get", bool)


def test_without_a_call_nothing_is_held(model: Model) -> None:
    guide = model.guide(random_tools(random.Random(1)), "auto")
    assert [guide.next_id(), guide.mask()] == [None, None]


def test_a_schema_that_cannot_be_held_to_is_let_go() -> None:
    odd = {"type": "string", "format": "no such format"}
    properties = {"x": {"$ref": "https://example.com/x"}, "y": {"type": "integer"}, "z": odd}
    (tool,) = usable(checked_tools([{"name": "f", "parameters": {"properties": properties}}]), by_parts=True)
    assert (tool.properties["x"], tool.properties["z"]) == ({}, {"type": "string"})
    assert tool.properties["y"] == {"type": "integer"}


def test_a_call_that_has_to_come_waits_for_the_thought(model: Model) -> None:
    if model.notation.family != "json":
        return
    tools = checked_tools([{"name": "now"}])
    pieces = model.said(tools, "required", random.Random(1), "hm</think>", "<think>\n")
    assert "".join(piece for piece in pieces if isinstance(piece, Thought)) == "hm</think>"
    assert [piece.name for piece in pieces if isinstance(piece, ToolCall)] == ["now"]
