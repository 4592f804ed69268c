"""Calls that are held to their tools: whatever a model would rather say, what comes is a call, and fits."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import vocabularies

from qcli.constraints.vocabulary import Vocabulary
from qcli.runtime.call_guide import CallGuide, usable
from qcli.runtime.thought_closer import ThoughtCloser
from qcli.text.parsers import parser_with_calls
from qcli.text.tokenizer import Tokenizer
from qcli.tools.call import MalformedCall, ToolCall
from qcli.tools.notation import find_notation
from qcli.tools.tool import Tools, checked_tools

FAMILIES: dict[str, tuple[list[str], list[str], str]] = {  # control tokens, tokens that are text too, template
    "json": ([], ["<tool_call>", "</tool_call>"], "<tool_call>"),
    "xml": ([], ["<tool_call>", "</tool_call>"], "<function="),
    "pairs": (
        [],
        ["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
        "<arg_key>",
    ),
    "python": (["<|tool_call_start|>", "<|tool_call_end|>"], [], ""),
    "mistral": (["[TOOL_CALLS]", "[ARGS]"], [], ""),
    "mistral list": (["[TOOL_CALLS]"], [], ""),
    "json list": (["<|tool_call|>"], [], ""),
    "harmony": (["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|constrain|>"], [], ""),
}
FREE = ("a", "g")  # how the names of arguments begin that may be any text
KINDS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "integer"},
    {"type": "boolean"},
    {"enum": ["red", "green"]},
    {"type": "array", "items": {"type": "integer"}},
    {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"], "additionalProperties": False},
    {"type": ["string", "null"]},
]


def random_tools(chance: random.Random) -> Tools:
    """Some tools, names of which may begin others."""
    listed = []
    for name in chance.sample(["get", "get_time", "send", "a"], chance.randint(1, 4)):
        kinds = [chance.randrange(len(KINDS)) for _ in range(chance.randint(0, 3))]
        properties = {f"{'abcdefg'[kind]}{n}": KINDS[kind] for n, kind in enumerate(kinds)}
        required = [argument for argument in properties if chance.random() < 0.5]
        listed.append({"name": name, "parameters": {"properties": properties, "required": required}})
    return checked_tools(listed)


class Model:
    """Says anything: a vocabulary of bytes, and the notation of a family."""

    def __init__(self, folder: Path, family: str) -> None:
        control, text, template = FAMILIES[family]
        special = {**dict.fromkeys(control, 3), **dict.fromkeys(text, 4)}
        self.tokenizer = Tokenizer.from_gguf(vocabularies.of_bytes(folder / "vocab.gguf", special))
        self.vocabulary = Vocabulary(self.tokenizer.text_bytes(), self.tokenizer.encode_after)
        self.notation = find_notation(special, template)

    def guide(self, tools: Tools, choice: str) -> CallGuide:
        prompt = "<|start|>assistant" if self.notation.family == "harmony" else ""
        parser = parser_with_calls(self.tokenizer, [], prompt, self.notation, tools)
        closer = ThoughtCloser(parser, list)
        return CallGuide(parser, closer, self.tokenizer, self.vocabulary, self.notation, tools, choice)

    def said(self, tools: Tools, choice: str, chance: random.Random, begun: str = "") -> list[str]:
        """The pieces of an answer up to its first call, each token drawn from all that may come."""
        guide, pieces = self.guide(tools, choice), []
        coming = self.tokenizer.encode_marker(begun)
        for step in range(3000):
            if step % 100 == 99 and self._in_text(guide):
                coming = self.tokenizer.encode("</parameter>")  # few models of chance would write that
            id = coming.pop(0) if coming else guide.next_id()
            if id is None:
                mask = guide.mask()
                assert mask is not None
                bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
                ids = np.flatnonzero(bits).tolist()
                likely = [id for id in ids if chr(self._byte(id)) in '"]})</,\n']  # so that it comes to an end
                id = chance.choice(likely if likely and step % 3 else ids)
            pieces += [piece for piece in guide.push(id) if piece]
            if any(isinstance(piece, ToolCall | MalformedCall) for piece in pieces) or self._is_end(id):
                break
        return pieces + [piece for piece in guide.flush() if piece]

    def _in_text(self, guide: CallGuide) -> bool:
        begun = guide._parser.call_begun or ""
        last = begun.rpartition("<parameter=")[2]
        return "<parameter=" in begun and ">\n" in last and "</parameter>" not in last and last.startswith(FREE)

    def _byte(self, id: int) -> int:
        return self.tokenizer.token_bytes(id)[0]

    def _is_end(self, id: int) -> bool:
        return self.tokenizer.token(id) == "<|call|>"


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("guide"), request.param)


def test_calls_drawn_from_random_tools_all_fit(model: Model) -> None:
    """Their names are among those that were allowed (tests/fuzz/fuzz_calls.py draws more of them)."""
    for seed in range(7):
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
    assert tool.properties["x"] == {}
    assert tool.properties["y"] == {"type": "integer"}
