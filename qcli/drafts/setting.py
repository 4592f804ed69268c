"""Whether tokens are guessed ahead, as a user says it."""

from __future__ import annotations

from typing import Final, NamedTuple

from qcli.errors import UsageError
from qcli.wording import shortened

WORDS: Final = ("auto", "off")
MOST: Final = 7  # guesses of a step
HELP: Final = (
    f"Guess the next tokens where that is quicker: auto, off, or 1 to {MOST} at a time. The answer is the same, "
    "sooner (default: auto)."
)


class Draft(NamedTuple):
    """Whether to guess, and how many tokens at a time: None for as many as pay."""

    on: bool = True
    at_a_time: int | None = None

    @classmethod
    def of(cls, setting: str | int) -> Draft:
        """What a checked setting means."""
        return cls(setting != "off", setting if isinstance(setting, int) else None)


OFF: Final = Draft(on=False)


def draft_setting(named: str, value: str | int) -> str | int:
    """ "auto", "off" or a number, as a number; named: where it was given, as errors say it. Raises UsageError."""
    text = str(value)
    if text in WORDS:
        return text
    if text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= MOST:
        return int(text)
    raise UsageError(f"{named} cannot be {shortened(repr(value))}", f"give auto, off, or a number from 1 to {MOST}")
