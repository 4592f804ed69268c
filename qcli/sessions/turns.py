"""Where taking turns back and bringing them back leads in a tree of messages."""

from __future__ import annotations

from collections.abc import Sequence

from qcli.errors import UsageError
from qcli.sessions.session import Message, Session
from qcli.wording import counted


def asked(branch: Sequence[Message]) -> list[Message]:
    """The messages of the user."""
    return [message for message in branch if message.role == "user"]


def up_to_last_question(branch: Sequence[Message]) -> list[Message]:
    """A branch without what follows the user's last message. Raises UsageError if there is none."""
    last = max((i for i, message in enumerate(branch) if message.role == "user"), default=None)
    if last is None:
        raise UsageError("there is no answer yet", "type a message first")
    return [*branch[: last + 1]]


def head_before(session: Session, n: int) -> int | None:
    """The head without the last n turns. Raises UsageError if there are fewer."""
    questions = asked(session.branch())
    if not 0 < n <= len(questions):
        hint = "take back fewer" if questions else "type a message first"
        raise UsageError(_too_few(len(questions), "to take back"), hint)
    return questions[-n].parent


def head_after(session: Session, n: int) -> int:
    """The head n turns further, on the branch of the last message written of those that follow. Raises UsageError."""
    ahead = _ahead(session)
    after = [*(message.role for message in ahead[1:]), "user"] if ahead else []
    ends = [
        message.id
        for message, follows in zip(ahead, after, strict=True)
        if message.role in ("assistant", "tool") and follows in ("user", "system")
    ]
    if not 0 < n <= len(ends):
        hint = "bring back fewer" if ends else "undo takes turns back"
        raise UsageError(_too_few(len(ends), "to bring back"), hint)
    return ends[n - 1]


def _ahead(session: Session) -> list[Message]:
    below, last = {session.head}, None
    for message in session.messages.values():
        if message.parent in below:
            below.add(message.id)
            last = message.id
    start = session.head or 0
    return [message for message in session.branch(last) if message.id > start] if last else []


def _too_few(there: int, what: str) -> str:
    if not there:
        return f"there is no turn {what}"
    return f"there {'is' if there == 1 else 'are'} only {counted(there, 'turn')} {what}"
