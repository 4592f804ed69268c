"""The key of a server, as it can be given: what every client can send in a header, and nobody has by sending nothing."""

from __future__ import annotations

from typing import Any

from qcli.errors import UsageError
from qcli.wording import shortened


def key_setting(named: str, value: Any) -> str:
    """A key: printable ASCII without spaces, at least one character. Raises UsageError, which calls it `named`."""
    hint = "give letters, digits and signs that every keyboard has, without spaces"
    if value == "":  # as of a shell's variable that is not set: everybody would have it
        raise UsageError(f"{named} is empty", hint)
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()) or " " in value:
        raise UsageError(f"{named} cannot be {shortened(ascii(value))}: not every client could send it", hint)
    return value
