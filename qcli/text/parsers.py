"""The parser of an answer: whether the model thinks and how it marks that, and what it may call."""

from __future__ import annotations

from collections.abc import Sequence

from qcli.text.call_parser import CallParser
from qcli.text.harmony_calls import HarmonyCallParser
from qcli.text.think_tags import ThinkTags
from qcli.text.thoughts import AnswerParser, answer_parser
from qcli.text.tokenizer import Tokenizer
from qcli.tools.notation import Notation
from qcli.tools.tool import Tools


def parser_with_calls(
    tokenizer: Tokenizer, tags: Sequence[ThinkTags], prompt: str, notation: Notation | None, tools: Tools | None
) -> AnswerParser:
    """The parser for the answer to a prompt that tells of tools; without tools, calls are looked for nowhere."""
    if tools is None or notation is None:
        return answer_parser(tokenizer, tags, prompt)
    if notation.family == "harmony":
        return HarmonyCallParser(tokenizer, prompt, tools)
    return CallParser(answer_parser(tokenizer, tags, prompt), tokenizer, notation, tools)
