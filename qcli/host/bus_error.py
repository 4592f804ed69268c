"""A mapped file that is cut, or whose disk goes away, while it is being read: an error in place of "Bus error".

The system tells the thread that touches a page which is no longer there by SIGBUS. A Python handler would never run, as
the instruction is tried again first; one of C's does, whether its thread holds the interpreter's lock or not.
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

_maps: WeakKeyDictionary[mmap.mmap, Path] | None = None  # nothing is kept unless the command line asks for it
_first = threading.Lock()  # to say it


def ends_the_program() -> None:
    """Watch what is mapped from now on; for the command line, as a program that uses qcli has its own ways."""
    global _maps
    _maps = WeakKeyDictionary() if hasattr(signal, "SIGBUS") else None


def mapped(map_: mmap.mmap, path: Path) -> mmap.mmap:
    """The map itself, whose file can be named from now on."""
    if _maps is not None:
        _maps[map_] = path
        _catch()
    return map_


@cache
def _catch() -> object:
    """Install the handler, once; the cache keeps it alive."""
    import ctypes

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_end)
    ctypes.CDLL(None).signal(int(signal.SIGBUS), handler)
    return handler


def _end(number: int) -> None:
    """Say it once, however many threads meet it, and end: there is nothing to return to."""
    if not _first.acquire(blocking=False):
        threading.Event().wait()
    try:
        from qcli.host.atomic_files import Draft

        for draft in Draft.begun:
            draft.clear()
        message = f"{_lost()}: was cut, or its disk is gone, while it was being read"
        console.fail(ModelFileError(message, "see whether the disk is there; if the file was cut, download it again"))
    finally:
        os._exit(ModelFileError.exit_code)


def _lost() -> Path | str:
    """The file that has become shorter than its map, or else the one opened first."""
    maps = dict(_maps or {})
    cut = (path for map_, path in maps.items() if map_.size() < len(map_))
    return next(chain(cut, maps.values()), "a file")
