"""Files that are read past the system's cache of pages, as far as it lets."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from qcli.errors import ModelFileError
from qcli.host.pages import allocate_pages
from quant.read_queue import PAGE


def open_to_read(path: Path, unbuffered: bool) -> tuple[int | None, int]:
    """Descriptors for unbuffered reads, or None unless they are wanted and a trial shows that they work; for buffered ones.

    Linux has a flag for it, with which reads must be whole pages; macOS a mode of a descriptor, without such a rule; on
    Windows, and elsewhere, all go through the cache. Raises ModelFileError.
    """
    try:
        buffered = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot be read: {error.strerror}", "check the path and its permissions"
        ) from None
    direct = None
    if not unbuffered:
        return direct, buffered
    try:
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(buffered, fcntl.F_NOCACHE, 1)
        elif hasattr(os, "O_DIRECT") and hasattr(os, "preadv"):  # the trial's bytes have to be aligned
            direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
            os.preadv(direct, [memoryview(allocate_pages(PAGE).data)], 0)
        elif hasattr(os, "posix_fadvise"):
            os.posix_fadvise(buffered, 0, 0, os.POSIX_FADV_RANDOM)
    except OSError:  # tmpfs, and network and foreign file systems, know no such reads
        if direct is not None:
            os.close(direct)
        direct = None
    return direct, buffered


def handles(direct: int | None, buffered: int) -> tuple[int, int]:
    """What compiled code calls the system with: the descriptors, or -1; on Windows the handle behind the second."""
    if sys.platform == "win32":
        import msvcrt

        get_handle: Any = msvcrt.get_osfhandle
        return -1, get_handle(buffered)
    return -1 if direct is None else direct, buffered


def reads_wait_for_each_other() -> bool:
    """Whether reads through one descriptor come one after the other, so that each thread wants its own."""
    return sys.platform == "win32"


def can_tell() -> bool:
    """Whether reads past the cache would have a descriptor of their own here."""
    return hasattr(os, "O_DIRECT")


def can_forget() -> bool:
    """Whether the system drops what it keeps of a file when it is asked to."""
    return hasattr(os, "posix_fadvise")


def forget(path: Path) -> None:
    """Have the system drop what it keeps of a file, if it can."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
