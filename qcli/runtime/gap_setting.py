"""How long an answer may pause while the prompt of another is read, as options and settings take it."""

from __future__ import annotations

from typing import Any, Final

from qcli.errors import UsageError
from qcli.wording import shortened

MAX_GAP: Final = 0.3  # seconds, where nothing else is said
HELP: Final = (
    "Let no answer pause for longer than so many seconds while the question of another is read. A larger number has long "
    "questions read sooner."
)
_LEAST, _MOST = 0.01, 60.0  # seconds


def gap_setting(name: str, value: Any) -> float:
    """A number of seconds; name: of the option or setting. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _LEAST <= value <= _MOST:
        raise UsageError(f"{name} cannot be {shortened(str(value))}", f"give seconds, from {_LEAST} to {_MOST:g}")
    return float(value)
