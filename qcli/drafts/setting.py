"""Whether tokens are guessed ahead, as a user says it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from qcli.errors import UsageError
from qcli.wording import shortened

MOST: Final = 7  # guesses of a step
WORDS: Final = ("auto", "off", "mtp", "lookup")
HELP: Final = (
    "Guess the next words where that is quicker: auto, off, only as the model itself expects them (mtp), only where the text "
    f"repeats itself (lookup), or 1 to {MOST} at a time. The answer is the same, sooner (default: auto)."
)


class Draft(NamedTuple):
    """Whether to guess; by what: the model's own head ("mtp"), the text ("lookup"), or both; and how many tokens at a time,
    None for as many as pay."""

    on: bool = True
    at_a_time: int | None = None
    by: str | None = None

    @property
    def asks_head(self) -> bool:
        """Whether the model's own head may guess, so that it is of use."""
        return self.on and self.by != "lookup"

    @classmethod
    def of(cls, setting: str | int) -> Draft:
        """What a checked setting means."""
        number = setting if isinstance(setting, int) else None
        return cls(setting != "off", number, str(setting) if setting in ("mtp", "lookup") else None)


OFF: Final = Draft(on=False)


def draft_setting(named: str, value: str | int) -> str | int:
    """One of WORDS or a number, as a number; named: where it was given, as errors say it. Raises UsageError."""
    text = str(value)
    if text in WORDS:
        return text
    if text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= MOST:
        return int(text)
    hint = f"give {', '.join(WORDS)}, or a number from 1 to {MOST}"
    raise UsageError(f"{named} cannot be {shortened(repr(value))}", hint)


def require_head(draft: Draft, has_head: bool, path: Path) -> None:
    """Raise UsageError where guesses are to come from a model's own head, and it has none."""
    if draft.by == "mtp" and not has_head:
        message = f"{path}: has no block for multi-token prediction, by which it could guess"
        raise UsageError(
            message,
            ("give --draft auto", "give a file of such a block with --draft-model", "take a model that has one"),
        )
