"""The conversation of Anthropic's requests, as chat templates are given it."""

from __future__ import annotations

from typing import Any

from qcli.errors import UsageError
from qcli.protocol.conversation import for_template
from qcli.protocol.errors import RequestError
from qcli.protocol.fields import Fields
from qcli.protocol.openai_messages import MOST_MESSAGES
from qcli.tools.call import ToolCall
from qcli.tools.tool import Tools, checked_tools

_MOST_BLOCKS = 1000  # of a message
_MOST_TOOLS = 256


def read_conversation(fields: Fields) -> tuple[list[dict[str, Any]], str]:
    """The messages, and the text that the answer begins with if the last of them is the assistant's.

    Raises RequestError.
    """
    found: list[dict[str, Any]] = []
    if system := _texts(fields, "system"):
        found.append({"role": "system", "content": system})
    for message in fields.each("messages", MOST_MESSAGES):
        match message.word("role", ("user", "assistant", "system")):
            case "assistant":
                found.append(_said(message))
            case "system":
                found.append({"role": "system", "content": _texts(message, "content")})
            case "user":
                for part in _asked(message):
                    _add(found, part)
            case _:
                raise message.wrong("role", "give user or assistant")
    if not any(message["role"] == "user" or message["role"] == "tool" for message in found):
        raise RequestError("messages is empty", 'give [{"role": "user", "content": "…"}]', param="messages")
    if found[-1]["role"] != "assistant":
        return for_template(found), ""
    if "tool_calls" in found[-1]:
        raise RequestError("the last message calls a tool, and nothing answers it", "give its tool_result")
    begun: str = found.pop()["content"]
    return for_template(found), begun


def read_tools(fields: Fields) -> Tools | None:
    """The tools; None without any. Raises RequestError."""
    listed = []
    for tool in fields.each("tools", _MOST_TOOLS):
        tool.word("type", ("custom",))
        description = tool.text("description", "")
        schema = tool.table("input_schema")
        function = {"name": tool.text("name"), "description": description}
        listed.append({**function, "parameters": schema.values if schema else None})
    try:
        return checked_tools(listed) if listed else None
    except UsageError as problem:
        raise RequestError(problem.message, problem.hint, param="tools") from None


def _add(found: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Add a message; what one person says in two messages is one."""
    if found and part["role"] == found[-1]["role"] == "user":
        found[-1] = {**part, "content": f"{found[-1]['content']}\n\n{part['content']}"}
    else:
        found.append(part)


def _blocks(message: Fields, name: str) -> list[Fields]:
    """The blocks of a content; a text is one of them."""
    given = message.values.get(name)
    if isinstance(given, str):
        return [Fields({"type": "text", "text": given}, message.path(name))]
    if given is None:
        return []
    return [*message.each(name, _MOST_BLOCKS)]


def _texts(message: Fields, name: str) -> str:
    """The text of a content that may hold nothing else."""
    texts = []
    for block in _blocks(message, name):
        if block.values.get("type") != "text":
            raise block.wrong("type", "qcli reads text alone")
        texts.append(block.text("text"))
    return "\n".join(texts)


def _said(message: Fields) -> dict[str, Any]:
    """A message of the assistant."""
    texts, calls, thoughts = [], [], []
    for block in _blocks(message, "content"):
        match block.values.get("type"):
            case "text":
                texts.append(block.text("text"))
            case "tool_use":
                given = block.table("input")
                calls.append(ToolCall(block.text("name"), given.values if given else {}, block.text("id")))
            case "thinking":
                thoughts.append(block.text("thinking"))
            case "redacted_thinking":
                pass
            case _:
                raise block.wrong("type", "give text, tool_use or thinking")
    read: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts)}
    if calls:
        read["tool_calls"] = calls
    if thoughts:
        read["reasoning_content"] = "\n".join(thoughts)
    return read


def _asked(message: Fields) -> list[dict[str, Any]]:
    """A message of the user: what tools gave back, each a message, and texts."""
    found: list[dict[str, Any]] = []
    for block in _blocks(message, "content"):
        match block.values.get("type"):
            case "text":
                text = block.text("text")
                if found and found[-1]["role"] == "user":
                    found[-1]["content"] += f"\n{text}"
                else:
                    found.append({"role": "user", "content": text})
            case "tool_result":
                id, text = block.text("tool_use_id"), _texts(block, "content")
                text = f"Error: {text}" if block.flag("is_error") else text
                found.append({"role": "tool", "tool_call_id": id, "content": text})
            case _:
                raise block.wrong("type", "give text or tool_result: qcli reads text alone")
    return found
