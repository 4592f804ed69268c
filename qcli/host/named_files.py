"""Names of files as systems take them: on Windows a file that is open keeps its name, and a path is only so long."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from qcli.errors import OutputError
from quant.renaming import is_open_elsewhere, may_be_open_elsewhere

_NOT_FOUND: Final = (2, 3)  # ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND: also of a path that is too long
_TOO_LONG: Final = 206  # ERROR_FILENAME_EXCED_RANGE
_LONGEST: Final = 259  # characters of a file's path, where long ones are not turned on; 247 of a folder's
_END_IT = "end that program, and type the same again"
_SHORTER = "take a shorter path, or turn on long paths: LongPathsEnabled in the registry of Windows"


class Reason(NamedTuple):
    """Why a file cannot be had, and what to do."""

    said: str
    hint: str


def reason(problem: OSError, hint: str, path: Path | None = None, said: str = "") -> Reason:
    """What an error of a file means, where the system's own words say too little; hint: for an error that says enough.

    path: the file, if it need not be the one that the error names; said: instead of the system's own words.
    """
    length = max((len(_full(name)) for name in (path, *_named(problem)) if name), default=0)
    code = getattr(problem, "winerror", None)
    if code == _TOO_LONG or (code in _NOT_FOUND and length > _LONGEST):
        return Reason(f"its path of {length} characters is too long for Windows", _SHORTER)
    if is_open_elsewhere(problem):
        return Reason("another program has it open", _END_IT)
    said = said or problem.strerror or str(problem)
    if problem.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return Reason(said, "free some space, and type the same again")
    if may_be_open_elsewhere(problem):
        return Reason(f"{said}, or another program has it open", hint)
    return Reason(said, hint)


def resolved(path: Path) -> Path:
    """Where a path leads, links followed; of links that lead back to themselves, one of them."""
    return Path(os.path.realpath(path))


def in_use(path: Path) -> bool:
    """Whether a program has a file open so that nobody can replace or delete it, as happens on Windows alone.

    There a file that is open cannot be renamed either, to its own name included, which changes nothing.
    """
    if sys.platform == "win32":
        try:
            os.rename(path, path)
        except OSError as problem:
            return is_open_elsewhere(problem)
    return False


def require_unused(paths: Iterable[Path]) -> None:
    """Raise OutputError at the first of several files that is `in_use`, before anything is done to any of them."""
    if found := next(filter(in_use, paths), None):
        raise OutputError(f"{found}: another program has it open", _END_IT)


def _full(name: str | Path) -> str:
    try:
        return os.path.abspath(name)
    except OSError:  # the folder that a relative name is in was deleted
        return str(name)


def _named(problem: OSError) -> list[str | Path]:
    """The files that an error names: a temporary one may have a longer path than that which is meant."""
    return [name for name in (problem.filename, problem.filename2) if isinstance(name, str | Path)]
