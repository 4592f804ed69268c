"""The user's folder for what may be lost: compiled kernels, and which experts of a model were used."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

CHOOSES_CACHE = "QCLI_CACHE_DIR"


def cache() -> Path:
    """For what may be lost: QCLI_CACHE_DIR, else the system's folder for caches, such as ~/.cache/qcli."""
    chosen = os.environ.get(CHOOSES_CACHE)
    return Path(chosen) if chosen else user_cache_path("qcli", appauthor=False)


def spare_cache() -> Path:
    """For a home that is read-only: this user's temporary folder, and nobody else's, as code in it is run.

    Raises OSError: there is no temporary folder, or another user made that one.
    """
    user = getattr(os, "getuid", lambda: None)()
    mine = Path(tempfile.gettempdir()) / f"qcli-{'qcli' if user is None else user}"
    mine.mkdir(exist_ok=True, mode=0o700)
    if user is not None and mine.lstat().st_uid != user:
        raise PermissionError(f"{mine} is somebody else's")
    return mine
