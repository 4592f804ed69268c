"""The user's folders: for settings, for conversations, and for what may be lost, as compiled kernels are.

No folder depends on where a command is typed, as code in them is run and what people typed is kept.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from qcli.errors import UsageError

CHOOSES_CACHE = "QCLI_CACHE_DIR"


def cache() -> Path:
    """For what may be lost: QCLI_CACHE_DIR, else the system's folder for caches, such as ~/.cache/qcli.

    Raises UsageError if QCLI_CACHE_DIR is no full path, FileNotFoundError if there is no home.
    """
    from platformdirs import user_cache_path  # 2 ms that --help need not wait for

    if not (chosen := os.environ.get(CHOOSES_CACHE)):
        return _absolute(lambda: user_cache_path("qcli", appauthor=False), ".cache/qcli")
    path = expanded(chosen)
    if not path.is_absolute():
        raise UsageError(f"{CHOOSES_CACHE} is {chosen!r}, which is no full path", f"give one that begins with {os.sep}")
    return path


def some_cache() -> Path:
    """As `cache`, and where there is no home `spare_cache`."""
    try:
        return cache()
    except FileNotFoundError:
        return spare_cache()


def state() -> Path:
    """For what a person would miss, such as ~/.local/state/qcli. Raises FileNotFoundError if there is no home."""
    from platformdirs import user_state_path

    return _absolute(lambda: user_state_path("qcli", appauthor=False), ".local/state/qcli")


def data() -> Path:
    """For what a person made and keeps, such as ~/.local/share/qcli. Raises FileNotFoundError if there is no home."""
    from platformdirs import user_data_path

    return _absolute(lambda: user_data_path("qcli", appauthor=False), ".local/share/qcli")


def config() -> Path:
    """For what a person has set, such as ~/.config/qcli. Raises FileNotFoundError if there is no home."""
    from platformdirs import user_config_path

    return _absolute(lambda: user_config_path("qcli", appauthor=False), ".config/qcli")


def shared_cache() -> Path:
    """Where programs that share their files keep them: XDG_CACHE_HOME, else ~/.cache; FileNotFoundError without a home."""
    return _absolute(lambda: Path(os.environ.get("XDG_CACHE_HOME") or "."), ".cache")


def spare_cache() -> Path:
    """For a home that is read-only: this user's temporary folder, and nobody else's, as code in it is run.

    Raises OSError: there is no temporary folder, or another user made that one, or could write to it.
    """
    mine = _spare()
    mine.mkdir(exist_ok=True, mode=0o700)
    if not _is_mine(mine):
        raise PermissionError(f"{mine} is somebody else's")
    return mine


def caches() -> list[Path]:
    """Every folder of this user in which something that may be lost can be now; none is made. Raises UsageError."""
    found = []
    with suppress(FileNotFoundError):
        found.append(cache())
    with suppress(OSError):
        found += [_spare()] if _is_mine(_spare()) else []
    return [folder for folder in found if folder.is_dir()]


def expanded(path: str | Path) -> Path:
    """A path with ~ and ~user replaced by their folders; as it stands if there is no such user or no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _spare() -> Path:
    user = _user()
    return Path(tempfile.gettempdir()) / f"qcli-{'qcli' if user is None else user}"


def _is_mine(folder: Path) -> bool:
    """Whether it is a folder of this user that nobody else can write to. Raises OSError."""
    found, user = folder.lstat(), _user()
    return user is None or (found.st_uid == user and stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022)


def _user() -> int | None:
    """None where the system has no numbers for users."""
    number: int | None = getattr(os, "getuid", lambda: None)()
    return number


def _absolute(named: Callable[[], Path], below_home: str) -> Path:
    """The path that is named, or if that is relative, which XDG's specification has ignored, the one below the home."""
    try:
        path = named()
    except RuntimeError:  # how platformdirs says that there is no home
        path = Path()
    if path.is_absolute():
        return path
    home = expanded("~")
    if not home.is_absolute():
        raise FileNotFoundError("there is no home folder")
    return home / below_home
