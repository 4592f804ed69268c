"""Messages with tool calls, as chat templates read them; and as text, for templates that leave calls out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from qcli.errors import UsageError
from qcli.tools.call import checked_call
from qcli.tools.notation import Notation

PROBE: Final = "Zq7toolX"  # a name that no template writes itself
_PLAIN: Final = {"description": "a", "parameters": {"type": "object", "properties": {}}}
PROBE_TOOL: Final = {"type": "function", "function": {"name": PROBE, **_PLAIN}}
OTHER_TOOL: Final = {"type": "function", "function": {"name": "a", **_PLAIN}}
PROBE_TALK: Final[list[dict[str, Any]]] = [
    {"role": "user", "content": "a"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "id": "aaaaaaaaa", "function": {"name": PROBE, "arguments": {}}}],
    },
    {"role": "tool", "name": "a", "tool_call_id": "aaaaaaaaa", "content": "b"},
]


def with_calls(message: dict[str, Any], harmony: bool) -> dict[str, Any]:
    """A message whose calls have tables of arguments, as templates go through them. Raises UsageError for what is no call.

    harmony: its templates take what was thought before a call as "thinking", unless something was said.
    """
    calls = message.get("tool_calls")
    if not calls:
        return (
            {key: value for key, value in message.items() if key != "tool_calls"}
            if "tool_calls" in message
            else message
        )
    if not isinstance(calls, list | tuple):
        raise UsageError(f"{calls!r:.60} are no tool calls", "give a list")
    written = []
    for call in map(checked_call, calls):
        function = {"name": call.name, "arguments": call.arguments}
        written.append({"id": call.id, "type": "function", "function": function})
    message = {**message, "tool_calls": written}
    if harmony and (thought := message.pop("reasoning_content", "")) and not message["content"]:
        message["thinking"] = thought
    return message


def with_answered_calls(messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Messages as `with_calls` gives them, in which each result says whose it is: of the calls before it, the next."""
    waiting: list[str] = []
    for message in messages:
        if message.get("tool_calls"):
            waiting = [call["id"] for call in message["tool_calls"]]
        elif message["role"] == "tool" and waiting:
            id = message.get("tool_call_id") or waiting[0]
            message = {**message, "tool_call_id": id}
            waiting = [other for other in waiting if other != id]
        yield message


def calls_as_text(message: Mapping[str, Any], notation: Notation) -> dict[str, Any]:
    """A message whose calls stand in its text as the model writes them."""
    if not message.get("tool_calls"):
        return dict(message)
    written = notation.written([checked_call(call) for call in message["tool_calls"]])
    said = message.get("content") or ""
    plain = {key: value for key, value in message.items() if key not in ("tool_calls", "reasoning_content")}
    return {**plain, "content": f"{said}\n{written}" if said else written}
