"""A conversation as a Markdown document."""

from __future__ import annotations

from datetime import datetime

from qcli.sessions.session import Message, Session
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
    parts.append(_closed(message.text.strip("\n")))
    if message.finish_reason in _ENDED_EARLY:
        parts.append(f"*({_ENDED_EARLY[message.finish_reason]})*")
    return "\n\n".join(part for part in parts if part)


def _closed(text: str) -> str:
    """A text whose last block of code is closed, so that it does not take in what follows."""
    fences = [line.strip() for line in text.splitlines() if line.lstrip().startswith("```")]
    return text + "\n```" if len(fences) % 2 else text
