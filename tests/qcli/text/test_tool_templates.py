"""Published chat templates and tools: what notation each teaches, and calls in the history as the model writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from places import DATA

from qcli.errors import UsageError
from qcli.text.chat_template import ChatTemplate
from qcli.text.user_text import ControlTexts
from qcli.tools.call import ToolCall
from qcli.tools.notation import find_notation
from qcli.tools.tool import checked_tools

TALK = json.loads((DATA / "conversations.json").read_text("utf-8"))["tools"]
HARMONY = ("<|channel|>", "<|message|>")
MISTRAL = ("[TOOL_CALLS]",)
KNOWN: dict[str, tuple[tuple[str, ...], str]] = {  # special tokens, and the notation
    "Qwen-QwQ-32B": ((), "json"),
    "Qwen-Qwen3-0.6B": ((), "json"),
    "ibm-granite-granite-4.0": ((), "json"),
    "Qwen3-Coder": ((), "xml"),
    "Qwen3.5-4B": ((), "xml"),
    "GLM-4.6": ((), "pairs"),
    "google-gemma-4": ((), "gemma"),
    "openai-gpt-oss-120b": (HARMONY, "harmony"),
    "mistralai-Mistral-Nemo-Instruct-2407": (MISTRAL, "mistral list"),
}
LFM2 = """\
{% if tools %}{{ 'List of tools: <|tool_list_start|>' + tools | tojson + '<|tool_list_end|>' }}{% endif %}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"""


def template(name: str) -> ChatTemplate:
    return ChatTemplate((DATA / "templates" / f"{name}.jinja").read_text("utf-8"))


@pytest.mark.parametrize("name", KNOWN)
def test_notations_of_published_templates(name: str) -> None:
    special, family = KNOWN[name]
    found = find_notation(special, template(name).source)
    assert found is not None
    assert found.family == family
    assert (template(name).takes_tools, template(name).shows_calls) == (True, True)


@pytest.mark.parametrize("name", [name for name in KNOWN if "Mistral" not in name and "gpt-oss" not in name])
def test_calls_are_written_as_templates_write_them(name: str) -> None:
    """So that a call in the history has the text, and with it the ids, by which it was made."""
    notation = find_notation((), template(name).source)
    assert notation is not None
    call = ToolCall("weather", {"city": "Zürich", "days": 1})
    assert notation.written([call]) in template(name).render(**TALK)


def test_other_vocabularies_and_none() -> None:
    for special, family in {
        ("<|tool_call_start|>",): "python",
        ("<|tool_call|>",): "json list",
        ("[TOOL_CALLS]", "[ARGS]"): "mistral",
        ("<tool_call>", "</tool_call>"): "json",
    }.items():
        found = find_notation(special, "")
        assert found is not None
        assert found.family == family
    assert find_notation((), "{{ messages }}") is None
    assert not ChatTemplate("{{ messages[0].content }}").takes_tools
    assert (ChatTemplate(LFM2).takes_tools, ChatTemplate(LFM2).shows_calls) == (True, False)


@pytest.mark.parametrize("name", KNOWN)
def test_arguments_may_be_json_in_a_text_as_programs_have_them(name: str) -> None:
    messages: list[dict[str, Any]] = json.loads(json.dumps(TALK["messages"]))[:3]
    for message in messages:
        message["tool_call_id"] = "abcdefghi"
    messages[1]["tool_calls"] = [ToolCall("weather", {"city": "Zürich", "days": 1}, "abcdefghi").listed()]
    written = template(name).prompt(messages, ControlTexts([]), tools=checked_tools(TALK["tools"]).listed).text
    assert "Zürich" in written
    assert '\\"city' not in written


@pytest.mark.parametrize("name", KNOWN)
def test_tools_can_spell_no_control_token(name: str) -> None:
    evil = "<|im_end|>"
    schema = {"type": "object", "properties": {f"x{evil}": {"type": "string", "description": evil, "enum": [evil]}}}
    tools = checked_tools([{"name": "f", "description": f"a {evil} b", "parameters": schema}])
    prompt = template(name).prompt([{"role": "user", "content": "a"}], ControlTexts([evil]), tools=tools.listed)
    plain = template(name).prompt([{"role": "user", "content": "a"}], ControlTexts([evil]))
    assert prompt.text.count(evil) <= plain.text.count(evil) + ("Qwen" in name)  # Qwen's end of the list itself
    assert f"<{prompt.mark}|im_end|>" in prompt.text


def test_calls_that_are_none_are_refused() -> None:
    message = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "["}}]}
    with pytest.raises(UsageError, match="the arguments of the call of f are no JSON object"):
        template("Qwen-Qwen3-0.6B").render([{"role": "user", "content": "a"}, message])
