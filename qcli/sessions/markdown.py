"""A conversation as a Markdown document."""

from __future__ import annotations

import json
import re
from datetime import datetime

from qcli.sessions.calls import calls_of
from qcli.sessions.session import Message, Session
from qcli.tools.call import ToolCall
from qcli.wording import counted

_ENDED_EARLY = {
    "length": "cut off at its longest",
    "loop": "cut off, as it repeated itself",
    "interrupted": "interrupted",
}


def markdown(session: Session) -> str:
    """The branch that goes on: a heading, then each message under its role, thoughts as a quotation."""
    branch = session.branch()
    facts = [session.model, moment(session.changed), counted(len(branch), "message")]
    title = session.name or session.title or "Conversation"
    return "\n\n".join([f"# {title}", f"*{' · '.join(filter(None, facts))}*", *map(_section, branch)]) + "\n"


def moment(seconds: float) -> str:
    """A time since 1970 as 2026-11-28 22:46, where the user is; "" for one that is not known."""
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}" if seconds else ""


def _section(message: Message) -> str:
    parts = [f"## {message.role.capitalize()}"]
    if message.thoughts.strip():
        parts.append("\n".join(f"> {line}".rstrip() for line in message.thoughts.strip().splitlines()))
    if message.role == "tool":
        parts.append(fenced(message.text))
    else:
        parts.append(_closed(message.text.strip("\n")))
    parts += map(_call, calls_of(message))
    if message.finish_reason in _ENDED_EARLY:
        parts.append(f"*({_ENDED_EARLY[message.finish_reason]})*")
    return "\n\n".join(part for part in parts if part)


def _call(call: ToolCall) -> str:
    arguments = json.dumps(call.arguments, ensure_ascii=False, indent=2)
    return f"Call of `{call.name}`:\n\n{fenced(arguments, 'json')}"


def fenced(text: str, language: str = "") -> str:
    """A text as a block of code, whatever it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _closed(text: str) -> str:
    """A text whose last block of code is closed, so that it does not take in what follows."""
    fences = [line.strip() for line in text.splitlines() if line.lstrip().startswith("```")]
    return text + "\n```" if len(fences) % 2 else text
