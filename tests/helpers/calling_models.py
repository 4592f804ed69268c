"""Models that say anything and call tools: vocabularies of bytes in nine notations, and random tools."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import vocabularies

from qcli.constraints.vocabulary import Vocabulary
from qcli.runtime.call_guide import CallGuide
from qcli.runtime.thought_closer import ThoughtCloser
from qcli.text.parsers import parser_with_calls
from qcli.text.think_tags import find_think_tags
from qcli.text.tokenizer import Tokenizer
from qcli.tools.call import MalformedCall, ToolCall
from qcli.tools.notation import find_notation
from qcli.tools.tool import Tools, checked_tools

FAMILIES: dict[str, tuple[list[str], list[str], str]] = {  # control tokens, tokens that are text too, template
    "json": ([], ["<tool_call>", "</tool_call>", "<think>", "</think>"], "<tool_call><think></think>"),
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
    "gemma": ([], ["<|tool_call>", "<tool_call|>", '<|"|>'], ""),
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

    def guide(self, tools: Tools, choice: str, prompt: str = "") -> CallGuide:
        prompt = "<|start|>assistant" if self.notation.family == "harmony" else prompt
        tags = find_think_tags(self.tokenizer, "")
        parser = parser_with_calls(self.tokenizer, tags, prompt, self.notation, tools)
        closer = ThoughtCloser(parser, list)
        return CallGuide(parser, closer, self.tokenizer, self.vocabulary, self.notation, tools, choice, frozenset())

    def said(self, tools: Tools, choice: str, chance: random.Random, begun: str = "", prompt: str = "") -> list[str]:
        """The pieces of an answer up to its first call, each token drawn from all that may come."""
        guide, pieces = self.guide(tools, choice, prompt), []
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
        if self.notation.family == "harmony":
            return False
        begun = guide._parser.call_begun or ""
        last = begun.rpartition("<parameter=")[2]
        if not guide._parser._inside.is_whole:  # in the midst of a character
            return False
        return "<parameter=" in begun and ">\n" in last and "</parameter>" not in last and last.startswith(FREE)

    def _byte(self, id: int) -> int:
        return self.tokenizer.token_bytes(id)[0]

    def _is_end(self, id: int) -> bool:
        return self.tokenizer.token(id) == "<|call|>"
