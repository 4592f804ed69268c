"""Commands whose first word says what to do, such as `qcli sessions rm`."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from qcli.errors import UsageError
from qcli.wording import shortened


def unknown(command: str, action: str, actions: Iterable[str], instead: str = "") -> UsageError:
    """What to say of an action that a command does not have; instead: what to type, where that is known."""
    known = [*actions]
    close = get_close_matches(action, known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return UsageError(
        f'there is no "qcli {command} {shortened(action)}"', instead or f"{meant}there are {', '.join(known)}"
    )
