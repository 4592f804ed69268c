"""Whether, how long and how openly a model thinks before it answers, as people say it."""

from __future__ import annotations

import re
from typing import Any, Final

from qcli.errors import UsageError
from qcli.wording import shortened

Think = str | int | None  # a word of WORDS, or after how many tokens a thought is closed; None: "default"

EFFORTS: Final = ("low", "medium", "high")
WORDS: Final = ("default", "on", "off", "hide", *EFFORTS)
WITH_TEMPLATE: Final = ("on", "off", *EFFORTS)  # what a chat template alone can tell a model
HELP: Final = (
    "Whether the model thinks before it answers: on, off, hide (think unseen), low, medium, high, or for so many tokens"
    " at most (default: the model decides)."
)


def think_setting(named: str, value: Any) -> str | int:
    """What was typed, or given in Python, as a word of WORDS or a number of tokens: True is "on", False and 0 are "off".

    named: the option, as errors call it. Raises UsageError for anything else. A model may not have all of these: see
    qcli.text.thinking.
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    typed = str(value).strip().lower() if isinstance(value, str | int) else ""
    if typed in WORDS:
        return typed
    if re.fullmatch(r"[0-9]{1,9}", typed):
        return int(typed) or "off"
    shown = shortened(repr(value) if value == "" else str(value))
    raise UsageError(f"{named} cannot be {shown}", f"give {', '.join(WORDS)}, or a number of tokens")
