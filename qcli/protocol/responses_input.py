"""What a request of OpenAI's Responses asks: a text or items, instructions, tools, the form of the answer."""

from __future__ import annotations

from typing import Any, Final

from qcli.errors import UsageError
from qcli.protocol.conversation import for_template
from qcli.protocol.errors import RequestError
from qcli.protocol.fields import Fields
from qcli.protocol.openai_messages import MOST_MESSAGES, text_of
from qcli.protocol.openai_options import (
    MOST_TOKENS,
    form_options,
    sampling_options,
    think_options,
    tool_options,
)
from qcli.protocol.question import Question
from qcli.text.content import ROLES
from qcli.tools.call import checked_call

_SAMPLING: Final = {name: name for name in ("temperature", "top_p")}
_KEPT: Final = ("previous_response_id", "conversation", "prompt")  # what only a server that keeps answers can know
_MOST_TOOLS: Final = 256


def read_question(fields: Fields) -> Question:
    """The question of a request. Raises RequestError."""
    for name in _KEPT:
        if fields.has(name):
            hint = "send the whole conversation as input: no answers are kept here"
            raise RequestError(f"{name} is not supported", hint, param=name)
    if fields.flag("background"):
        raise RequestError("background is not supported", "leave it out", param="background")
    options = sampling_options(fields, _SAMPLING)
    options["stop_loops"] = True
    if (most := fields.whole("max_output_tokens", 1, MOST_TOKENS)) is not None:
        options["max_tokens"] = most
    text, reasoning = fields.table("text"), fields.table("reasoning")
    if text:
        options |= form_options(text, "format")
    think, wish = think_options(fields, reasoning.values.get("effort") if reasoning else None)
    options |= think
    listed = []
    for tool in fields.each("tools", _MOST_TOOLS):
        if tool.word("type", ("function",)) is None:
            raise tool.wrong("type", "give function")
        listed.append({key: tool.values.get(key) or "" for key in ("name", "description")})
        listed[-1]["parameters"] = tool.values.get("parameters")
    options |= tool_options(fields, listed, fields.values.get("tool_choice"))
    model = fields.text("model") if fields.has("model") else None
    one = not fields.flag("parallel_tool_calls", True)
    return Question(_messages(fields), options, model, wish=wish, one_call=one)


def _messages(fields: Fields) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if fields.has("instructions"):
        found.append({"role": "system", "content": fields.text("instructions")})
    if isinstance(fields.values.get("input"), str):
        return [*found, {"role": "user", "content": fields.text("input")}]
    before = len(found)
    for item in fields.each("input", MOST_MESSAGES):
        _add(found, item)
    if len(found) == before:
        raise fields.wrong("input", 'give a text, or [{"role": "user", "content": "…"}]')
    return for_template(found)


def _add(found: list[dict[str, Any]], item: Fields) -> None:
    """Add an item; calls belong to the message of the assistant before them."""
    match item.values.get("type", "message"):
        case "message":
            role = item.word("role", ROLES)
            if role is None:
                raise item.wrong("role", f"give one of {', '.join(ROLES)}")
            found.append({"role": role, "content": text_of(item, "content")})
        case "function_call":
            call = {"id": item.text("call_id"), "name": item.text("name"), "arguments": item.text("arguments", "{}")}
            if not (found and found[-1]["role"] == "assistant"):
                found.append({"role": "assistant", "content": ""})
            try:
                found[-1].setdefault("tool_calls", []).append(checked_call(call))
            except UsageError as problem:
                raise RequestError(problem.message, problem.hint, param=item.path("arguments")) from None
        case "function_call_output":
            content = text_of(item, "output")
            found.append({"role": "tool", "tool_call_id": item.text("call_id"), "content": content})
        case "reasoning":  # templates leave it out of the history
            pass
        case _:
            raise item.wrong("type", "give message, function_call or function_call_output")
