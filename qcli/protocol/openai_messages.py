"""The messages of OpenAI's chats, as chat templates are given them."""

from __future__ import annotations

from typing import Any, Final

from qcli.errors import UsageError
from qcli.protocol.conversation import for_template
from qcli.protocol.errors import RequestError
from qcli.protocol.fields import Fields
from qcli.text.content import ROLES, content_text
from qcli.tools.call import ToolCall, checked_call

MOST_MESSAGES: Final = 10_000
_MOST_CALLS: Final = 128  # of a message


def read_messages(fields: Fields, name: str = "messages") -> list[dict[str, Any]]:
    """The messages of a request, of which there is at least one. Raises RequestError."""
    found = [_message(message) for message in fields.each(name, MOST_MESSAGES)]
    if not found:
        raise RequestError(f"{name} is empty", 'give [{"role": "user", "content": "…"}]', param=name)
    return for_template(found)


def _message(message: Fields) -> dict[str, Any]:
    role = message.word("role", ROLES)
    if role is None:
        raise message.wrong("role", f"give one of {', '.join(ROLES)}")
    read: dict[str, Any] = {"role": role, "content": text_of(message, "content")}
    if role == "assistant":
        if calls := _calls(message):
            read["tool_calls"] = calls
        for name in ("reasoning_content", "reasoning"):
            if message.has(name):
                read["reasoning_content"] = message.text(name)
    elif role in ("tool", "function"):
        read |= {name: message.text(name) for name in ("tool_call_id", "name") if message.has(name)}
    return read


def text_of(message: Fields, name: str) -> str:
    """The text of a field: a text, nothing, or a list of parts, all of which are texts."""
    try:
        return content_text(message.values.get(name))
    except UsageError as problem:
        raise RequestError(f"{message.path(name)}: {problem.message}", problem.hint, param=message.path(name)) from None


def _calls(message: Fields) -> list[ToolCall]:
    found = []
    for call in message.each("tool_calls", _MOST_CALLS):
        try:
            found.append(checked_call(call.values))
        except UsageError as problem:
            raise RequestError(problem.message, problem.hint, param=message.path("tool_calls")) from None
    return found
