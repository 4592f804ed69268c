"""A conversation that is in memory alone: recorded nowhere, or no longer, as the disk is full."""

from __future__ import annotations

from dataclasses import dataclass

from qcli.sessions.session import Message, Session


@dataclass
class Unsaved(Session):
    """What SessionLog is, without a file."""

    @classmethod
    def of(cls, session: Session) -> Unsaved:
        """A copy of a session as it is now."""
        return cls({**session.header}, session.name, {**session.messages}, session.head, session.changed)

    def append(self, *messages: Message) -> None:
        """Add messages; the last of them is the head."""
        self.messages |= {message.id: message for message in messages}
        self.head = messages[-1].id

    def set_head(self, id: int | None) -> None:
        """Go to a message; None: before the first."""
        self.head = id

    def set_name(self, name: str) -> None:
        """Give it a name."""
        self.name = name

    def close(self) -> None:
        """There is nothing to close."""
