"""A conversation as chat templates read it, whichever protocol it came by."""

from __future__ import annotations

from typing import Any


def for_template(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages in which one of the system stands first, and each result of a tool says which tool that was.

    Clients send several at the beginning, and call some of them the developer's; templates know one, and call it system.
    """
    names: dict[str, str] = {}
    found: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "developer":
            message = {**message, "role": "system"}
        if message["role"] == "system" and len(found) == 1 and found[0]["role"] == "system":
            found[0] = {**message, "content": f"{found[0]['content']}\n\n{message['content']}"}
            continue
        names |= {call.id: call.name for call in message.get("tool_calls", ())}
        if message["role"] == "tool" and "name" not in message and (name := names.get(message.get("tool_call_id", ""))):
            message = {**message, "name": name}
        found.append(message)
    return found
