"""Reports a mapped file that is truncated, or whose disk fails, while it is read: an error message instead of "Bus error".

The system sends SIGBUS to the thread that touches a page which no longer exists. A handler in Python would never run, as the
instruction is repeated first; a handler of C runs at once, whether its thread holds the interpreter's lock or not.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
from functools import cache
from itertools import chain
from pathlib import Path
from weakref import WeakKeyDictionary

from qcli import console
from qcli.errors import ModelFileError

_maps: WeakKeyDictionary[mmap.mmap, Path] | None = None  # None: SIGBUS is not handled
_reporting = threading.Lock()  # taken by the first thread that reports


def exit_on_bus_error() -> None:
    """Handle SIGBUS for files mapped from now on; for the command line, as a program that uses qcli has its own handlers."""
    global _maps
    _maps = WeakKeyDictionary() if hasattr(signal, "SIGBUS") else None


def watch(map_: mmap.mmap, path: Path) -> mmap.mmap:
    """Note the file of a map, so that an error can name it; returns the map."""
    if _maps is not None:
        _maps[map_] = path
        _install()
    return map_


@cache
def _install() -> object:
    """Install the handler, once; the cache keeps it alive."""
    import ctypes

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_report_and_exit)
    ctypes.CDLL(None).signal(int(signal.SIGBUS), handler)
    return handler


def _report_and_exit(number: int) -> None:
    """Print the error once, whichever threads get the signal, and end the process: there is nothing to return to."""
    if not _reporting.acquire(blocking=False):
        threading.Event().wait()
    try:
        from qcli.host.atomic_files import AtomicFiles

        for files in AtomicFiles.unfinished:
            files.discard()
        message = f"{_truncated_file()}: was truncated, or its disk failed, while it was being read"
        hint = "check that the disk is there; if the file was truncated, download it again"
        console.fail(ModelFileError(message, hint))
    finally:
        os._exit(ModelFileError.exit_code)


def _truncated_file() -> Path | str:
    """The file that has become shorter than its map, or else the one mapped first."""
    maps = dict(_maps or {})
    truncated = (path for map_, path in maps.items() if map_.size() < len(map_))
    return next(chain(truncated, maps.values()), "a file")
