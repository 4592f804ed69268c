"""How large files are."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def total_size(*paths: Path) -> int:
    """Bytes of some files; one that is not there, or may not be asked about, has none."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += os.stat(path).st_size
    return total
