"""Giving a file that was written its name, and being rid of those that were not written to their ends.

Windows may refuse for a moment: a program that looks at new files has it open.

Other systems rename and delete files that are open. Windows lets nobody do so but with programs that were written for it,
and those that search for viruses, or index files, open every one that was just closed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

PART: Final = ".part"  # ends the name of a file that is not whole yet

_PART_GRACE: Final = 60  # seconds since the last byte of a file that is being written
_DENIED: Final = 5  # ERROR_ACCESS_DENIED: the file to be replaced is open, or a right is missing
_SHARED: Final = 32  # ERROR_SHARING_VIOLATION: the file itself is open
_PAUSES: Final = tuple(0.001 * 2**n for n in range(10))  # seconds, in all one


def is_open_elsewhere(problem: OSError) -> bool:
    """Whether Windows says that another program has the file open."""
    return _code(problem) == _SHARED


def may_be_open_elsewhere(problem: OSError) -> bool:
    """Whether Windows says so, or what it also says of a file that is open or mapped: that access is denied."""
    return _code(problem) in (_DENIED, _SHARED)


def replace(written: str | Path, path: Path) -> None:
    """Rename a file, over another of that name; tried again for a second on Windows. Raises OSError."""
    _patiently(lambda: os.replace(written, path))


def remove(path: Path) -> None:
    """Delete a file, if it is there; tried again for a second on Windows. Raises OSError."""
    _patiently(lambda: path.unlink(missing_ok=True))


def remove_parts(folder: Path) -> None:
    """Delete what processes left in a folder that were killed while they wrote: files of PART that grow no more."""
    with suppress(OSError):
        for path in folder.glob(f"*{PART}"):
            with suppress(OSError):  # deleted meanwhile
                if path.lstat().st_mtime < time.time() - _PART_GRACE:
                    path.unlink()


def keep_first(written: str | Path, path: Path) -> None:
    """As `replace`, for a name under which nothing but the same content is ever written.

    If the file of this name is in use, that one stays, and the other is deleted.
    """
    try:
        os.replace(written, path)
    except OSError as problem:
        if not may_be_open_elsewhere(problem):
            raise
        if path.exists():
            remove(Path(written))
        else:
            replace(written, path)


def _patiently(act: Callable[[], None]) -> None:
    for pause in _PAUSES:
        try:
            return act()
        except OSError as problem:
            if not may_be_open_elsewhere(problem):
                raise
        time.sleep(pause)
    return act()


def _code(problem: OSError) -> int | None:
    """The number of Windows' own error; other systems have none."""
    code: int | None = getattr(problem, "winerror", None)
    return code
