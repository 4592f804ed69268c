"""Tool calls in a branch of a conversation: those of an answer, and what tools gave back for them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from time import time
from typing import Any, Final

from qcli.sessions.session import Message
from qcli.tools.call import ToolCall

NOT_RUN: Final = "This call was not run."  # what the model is told of a call that nobody answered


def kept(call: ToolCall) -> dict[str, str]:
    """A call as a message keeps it: flat, its arguments as JSON."""
    return {"id": call.id, "name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}


def calls_of(message: Message) -> list[ToolCall]:
    """The calls of an answer; one whose arguments are damaged has none."""
    found = []
    for call in message.calls:
        arguments: Any = {}
        with suppress(ValueError, RecursionError):
            arguments = json.loads(call["arguments"])
        found.append(ToolCall(call["name"], arguments if isinstance(arguments, dict) else {}, call["id"]))
    return found


def told(message: Message) -> str:
    """What a message says, and what it calls, each call on a line."""
    return "\n".join(filter(None, (message.text.rstrip("\n"), *(call.shown for call in calls_of(message)))))


def open_calls(branch: Sequence[Message]) -> list[ToolCall]:
    """The calls at the end of a branch that no tool has answered yet."""
    answered = set()
    for message in reversed(branch):
        if message.role == "tool":
            answered.add(message.call)
        elif message.role == "assistant":
            return [call for call in calls_of(message) if call.id not in answered]
        elif message.role != "summary":
            break
    return []


def results(given: Iterable[tuple[ToolCall, str]]) -> list[Message]:
    """The messages of tools, without places in a conversation yet."""
    return [Message(0, None, "tool", text, time=time(), call=call.id) for call, text in given]


def in_prompt(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    """What a message with calls, or of a tool, has besides role and content; names: of tools, by the ids of calls."""
    if message.role == "tool":
        return {"tool_call_id": message.call, "name": names.get(message.call, "")}
    if not message.calls:
        return {}
    thought = {"reasoning_content": message.thoughts} if message.thoughts else {}
    return {"tool_calls": [call.listed() for call in calls_of(message)], **thought}
