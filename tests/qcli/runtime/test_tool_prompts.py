"""Prompts of conversations with tool calls: what a model said stays as it said it, with published templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import vocabularies
from places import DATA

from qcli.runtime.chat_prompts import ChatPrompts
from qcli.text.chat_template import PLAIN, ChatTemplate
from qcli.text.think_tags import find_think_tags
from qcli.text.tokenizer import Tokenizer
from qcli.tools.call import ToolCall
from qcli.tools.notation import find_notation
from qcli.tools.tool import checked_tools

TOOLS = checked_tools([{"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}])
CALL = ToolCall("weather", {"city": "Zürich <|im_end|>"})  # which spells a control token
CONTROL = [
    "<|im_end|>",
    "<|im_start|>",
    "<|call|>",
    "<|channel|>",
    "<|message|>",
    "<|start|>",
    "<|end|>",
    "<|constrain|>",
]
TEXT = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
LFM2 = """\
{% if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
HARMONY = (
    '{}<|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{{"city": "Zürich <|im_end|>"}}'
)
# What a model says before the call: after a prompt that opens a thought, and by its own.
SAID = {
    "Qwen3.5-4B": ("hm\n</think>\n\n", ""),
    "Qwen-Qwen3-0.6B": ("<think>\nhm\n</think>\n\n", "I look.\n"),
    "Qwen3-Coder": ("", ""),
    "ibm-granite-granite-4.0": ("", ""),
    "GLM-4.6": ("\n<think>hm</think>\n", "I look.\n"),
}


def prompts(folder: Path, source: str, special: dict[str, int]) -> tuple[ChatPrompts, Tokenizer, Any]:
    tokenizer = Tokenizer.from_gguf(vocabularies.of_bytes(folder / "vocab.gguf", special))
    notation = find_notation(special, source)
    template, tags = ChatTemplate(source), find_think_tags(tokenizer, source)
    return ChatPrompts(tokenizer, template, tags, PLAIN, TOOLS, notation), tokenizer, notation


def next_prompt(made: ChatPrompts, ids: list[int], text: str, thought: str) -> tuple[list[int], list[int]]:
    """The ids of a question with its answer, and of the prompt that follows a tool's result."""
    question = [{"role": "user", "content": "Weather?"}]
    answer = {"role": "assistant", "content": text, "tool_calls": [CALL.listed()], "ids": ids}
    answer |= {"reasoning_content": thought} if thought else {}
    result = {"role": "tool", "content": "12", "tool_call_id": CALL.id}
    return made.of(question)[1] + ids, made.of([*question, answer, result])[1]


@pytest.mark.parametrize("name", SAID)
def test_an_answer_with_a_call_begins_the_next_prompt(tmp_path: Path, name: str) -> None:
    source = (DATA / "templates" / f"{name}.jinja").read_text("utf-8")
    special = {**dict.fromkeys(CONTROL[:2], 3), **dict.fromkeys(TEXT, 4)}
    made, tokenizer, notation = prompts(tmp_path, source, special)
    thought, text = SAID[name]
    spelled = notation.written([CALL])
    ids = [*tokenizer.encode(thought + text), *tokenizer.encode(spelled, special=False)]
    said, follows = next_prompt(made, ids, text.strip(), "hm" if thought else "")
    assert follows[: len(said)] == said


def test_a_template_that_leaves_calls_out_gets_them_as_text(tmp_path: Path) -> None:
    special = dict.fromkeys(["<|im_start|>", "<|im_end|>", "<|tool_call_start|>", "<|tool_call_end|>"], 3)
    made, tokenizer, notation = prompts(tmp_path, LFM2, special)
    begin, end = (tokenizer.encode(marker) for marker in (notation.begin, notation.end))
    inside = tokenizer.encode(notation.written([CALL])[len(notation.begin) : -len(notation.end)], special=False)
    said, follows = next_prompt(made, [*begin, *inside, *end], "", "")
    assert follows[: len(said)] == said


def test_harmony(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (DATA / "templates" / "openai-gpt-oss-120b.jinja").read_text("utf-8")
    made, tokenizer, _ = prompts(tmp_path, source, dict.fromkeys(CONTROL, 3))
    head, _, tail = HARMONY.format("<|channel|>analysis<|message|>hm<|end|>").partition("<|im_end|>")
    ids = [*tokenizer.encode(head), *tokenizer.encode("<|im_end|>", special=False), *tokenizer.encode(tail)]
    said, follows = next_prompt(made, ids, "", "hm")
    assert follows[: len(said)] == said
