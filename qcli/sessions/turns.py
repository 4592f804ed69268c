"""Where taking turns back and bringing them back leads in a tree of messages."""

from __future__ import annotations

from collections.abc import Sequence

from qcli.errors import UsageError
from qcli.sessions.session import Message, Session
from qcli.wording import counted


def asked(branch: Sequence[Message]) -> list[Message]:
    """The messages of the user."""
    return [message for message in branch if message.role == "user"]


def steps(branch: Sequence[Message]) -> list[Message]:
    """What can be taken back, one by one: the messages of the user, each with what follows it, and summaries of turns.

    A summary between a question and its answer is none: it was there before, and the answer was given again.
    """
    before = [None, *branch]
    return [
        message
        for last, message in zip(before, branch, strict=False)
        if message.role == "user" or _is_made_there(message, last)
    ]


def _is_made_there(message: Message, before: Message | None) -> bool:
    return message.role == "summary" and before is not None and before.role == "assistant"


def after_last_question(branch: Sequence[Message]) -> list[Message]:
    """The summaries after the user's last message: they hold as well where it is answered again."""
    return [message for message in branch[len(up_to_last_question(branch)) :] if message.role == "summary"]


def up_to_last_question(branch: Sequence[Message]) -> list[Message]:
    """A branch without what follows the user's last message. Raises UsageError if there is none."""
    last = max((i for i, message in enumerate(branch) if message.role == "user"), default=None)
    if last is None:
        raise UsageError("there is no answer yet", "type a message first")
    return [*branch[: last + 1]]


def around_last_said(branch: Sequence[Message]) -> tuple[list[Message], Message, list[Message]]:
    """What comes before the last message of user, assistant or tool, that message, and the summaries after it."""
    last = max(i for i, message in enumerate(branch) if message.role in ("user", "assistant", "tool"))
    return [*branch[:last]], branch[last], [message for message in branch[last + 1 :] if message.role == "summary"]


def head_before(session: Session, n: int) -> int | None:
    """The head without the last n steps. Raises UsageError if there are fewer."""
    questions = steps(session.branch())
    if not 0 < n <= len(questions):
        hint = "take back fewer" if questions else "type a message first"
        raise UsageError(_too_few(len(questions), "to take back"), hint)
    return questions[-n].parent


def head_after(session: Session, n: int) -> int:
    """The head n steps further, on the branch of the last message written of those that follow. Raises UsageError."""
    ahead = _ahead(session)
    last = None if session.head is None else session.messages[session.head]
    after = [message.role for message in ahead[1:]] + ["user"]
    ends = [
        message.id
        for before, message, follows in zip([last, *ahead], ahead, after, strict=False)
        if (message.role in ("assistant", "tool") and follows not in ("assistant", "tool"))
        or _is_made_there(message, before)
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
