"""The one way to compile: `njit`, `inline` and `kernel`, with a cache folder named by a hash of the sources.

Numba's disk cache looks only at the file that holds a function: after an edit in a helper it still runs the old code.
A folder per state of all sources cures that; it must be set before any decorator runs, so it is set here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import types

_UNUSED_DAYS = 30


def _cache_root() -> Path:
    if folder := os.environ.get("QCLI_CACHE_DIR"):
        return Path(folder)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "qcli" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "qcli"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "qcli"


def _source_hash() -> str:
    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:2]}".encode())
    here = Path(__file__).parent
    for path in sorted(here.rglob("*.py")):
        digest.update(path.relative_to(here).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _remove_unused(kernels: Path, keep: Path) -> None:
    """Delete caches of other versions that nobody has opened for a month."""
    oldest = time.time() - _UNUSED_DAYS * 86_400
    for folder in kernels.iterdir():
        if folder != keep and folder.is_dir() and folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)


def _cache_folder() -> Path:
    kernels = _cache_root() / "kernels"
    folder = kernels / _source_hash()
    try:
        new = not folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        if new:
            _remove_unused(kernels, folder)
    except (OSError, RuntimeError):  # read-only home, no home: compile for this user's temporary folder
        folder = Path(tempfile.gettempdir()) / f"qcli-{os.environ.get('USER', 'kernels')}" / folder.name
        folder.mkdir(parents=True, exist_ok=True)
    return folder


CACHE_FOLDER = _cache_folder()
numba.config.CACHE_DIR = str(CACHE_FOLDER)

# No fast-math flag: results must not depend on how rows are grouped, so sums are ordered by hand with vectors.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}


def njit(function: Callable[..., Any]) -> Any:
    """Compile a function called from Python; cached on disk, releases the GIL, never checks bounds."""
    return numba.njit(cache=True, **_OPTIONS)(function)


def inline(function: Callable[..., Any]) -> Any:
    """Compile a helper that is always merged into the kernel that calls it."""
    return numba.njit(forceinline=True, error_model="numpy")(function)


class Kernel:
    """A compiled C function known by its address; compiled, or loaded from the cache, when first asked for."""

    def __init__(self, function: Callable[..., None], signature: Any) -> None:
        self.function = function
        self.signature = signature
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._compiled: Any = None

    def compile(self) -> None:
        """Compile the function or load it, unless that was done."""
        if self._compiled is None:
            self._compiled = numba.cfunc(self.signature, cache=True, error_model="numpy")(self.function)

    @property
    def address(self) -> int:
        """The machine address of the function."""
        self.compile()
        return int(self._compiled.address)

    def __repr__(self) -> str:
        return f"Kernel({self.name})"


def kernel(function: Callable[..., None]) -> Kernel:
    """Declare a kernel of a plan: `f(rank, size, operand, …)`, every argument an address or an integer (intp)."""
    arguments = function.__code__.co_argcount
    return Kernel(function, types.void(*[types.intp] * arguments))


def row_kernel(*arguments: Any) -> Callable[[Callable[..., None]], Kernel]:
    """Declare a kernel that other kernels call through its address, with the argument types given."""
    return lambda function: Kernel(function, types.void(*arguments))
