"""Messages as people and programs write them: a role, and a content that is a text or a list of parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qcli.errors import UsageError

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


def checked(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates want it: a role that is known, and a text as content, if only an empty one."""
    if not isinstance(message, Mapping) or "role" not in message:
        raise UsageError(f"{message!r:.60} is no message", 'a message is {"role": "user", "content": "…"}')
    if message["role"] not in ROLES:
        raise UsageError(f"no role is called {message['role']!r}", f"it is one of {', '.join(ROLES)}")
    return {**message, "content": content_text(message.get("content"))}


def content_text(content: Any) -> str:
    """The text of a message's content: a text, nothing, or a list of parts as OpenAI's clients write them."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list | tuple):
        raise UsageError(f"the content of a message is {content!r:.60}", "give a text")
    return "\n".join(_part_text(part) for part in content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else part
    raise UsageError(f"a message holds a part that is no text: {kind!r:.60}", "qcli reads text alone")


def checked_text(text: Any) -> str:
    """A text as it is; UsageError if it is something else."""
    if not isinstance(text, str):
        raise UsageError(f"{text!r:.60} is no text", "give a str; chat() takes messages")
    return text
