"""When a model was last loaded to answer: an empty file for each, named after the model's path, whose date is the time.

One file for each model, so that no process writes over what another has noted.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from qcli.host import folders
from qcli.host.named_files import resolved


def note(path: Path) -> None:
    """Note that a model was loaded now; where nothing can be written, nobody is told."""
    with suppress(OSError):
        mark = _mark(path)
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT, 0o600))
        os.utime(mark)


def when(path: Path) -> float | None:
    """Seconds since 1970; None if it never was, or nobody noted it."""
    with suppress(OSError):
        return _mark(path).stat().st_mtime
    return None


def forget(path: Path) -> None:
    """Delete the note of a model that is gone."""
    with suppress(OSError):
        _mark(path).unlink(missing_ok=True)


def _mark(path: Path) -> Path:
    """By where links lead: a revision of the hub that changes nothing stays the same model."""
    name = hashlib.sha256(os.fsencode(resolved(path))).hexdigest()[:32]
    return folders.state() / "used" / name
