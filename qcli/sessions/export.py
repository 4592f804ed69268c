"""A conversation as one JSON value."""

from __future__ import annotations

from typing import Any

from qcli.sessions.session import Session


def whole(session: Session, **facts: Any) -> dict[str, Any]:
    """Facts about a session, then all that is in it; `branch` has the ids of those messages that go on."""
    return {
        **facts,
        "header": session.header,
        "branch": [message.id for message in session.branch()],
        "messages": [vars(message) for message in session.messages.values()],
    }
