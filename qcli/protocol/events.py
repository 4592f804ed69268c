"""Server-sent events: what they are called, what they hold, and how they are written."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple


class Event(NamedTuple):
    """An event of a stream; name: where the protocol gives events names."""

    data: dict[str, Any]
    name: str | None = None


DONE: Final = b"data: [DONE]\n\n"  # the end of OpenAI's older streams


def encoded(event: Event) -> bytes:
    """An event as it is sent."""
    name = f"event: {event.name}\n" if event.name else ""
    return f"{name}data: {json.dumps(event.data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def comment(text: str) -> bytes:
    """A line that clients pass over, and that keeps the connection in use."""
    return f": {' '.join(text.split())}\n\n".encode()
