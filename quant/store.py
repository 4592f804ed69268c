"""Where machine code is kept: a file a kernel, named by a hash of its sources, in a folder for the processor.

A file holds a checksum, the symbol's name, and an object file that LLVM's loader takes as it is (0.3 ms each).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from quant import cpu, sources
from quant.jit import Kernel

_UNUSED_DAYS = 30
_MOST_COMPILERS = 8
_WORTH_A_PROCESS = 4  # kernels; starting a compiler takes as long as compiling one
_POLL_SECONDS = 0.05
_DIGEST_BYTES = 32


def address(kernel: Kernel) -> int:
    """The address of a kernel, from the store or from the compiler."""
    code = _read(kernel) or _compile_here(kernel)
    symbol, object_file = code
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(object_file))
    engine.finalize_object()
    return int(engine.get_function_address(symbol))


def prepare(kernels: Sequence[Kernel], progress: Callable[[float], None] | None = None) -> None:
    """Have these kernels compiled, by several processes where that is quicker; progress(fraction) hears of it."""
    missing = [kernel for kernel in kernels if not os.path.exists(_path(kernel))]
    compilers = min(_processors(), _MOST_COMPILERS, len(missing) // _WORTH_A_PROCESS)
    if compilers > 1 and os.access(folder(), os.W_OK):
        for done in _compile_beside(missing, compilers):
            if progress:
                progress(done / len(missing))
    for done, kernel in enumerate(missing):
        if progress and not os.path.exists(_path(kernel)):
            progress(done / len(missing))
        _ = kernel.address  # loaded, or compiled here; kept by the kernel, so a store that cannot be written costs once


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def save(kernel: Kernel, symbol: str, object_file: bytes) -> None:
    """Keep a kernel's code: written beside, then renamed. A full disk only costs the next start its time, with a warning."""
    content = symbol.encode() + b"\0" + object_file
    path = _path(kernel)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(file.name, path)
        _remove_unused(path, kernel.name)
    except OSError as problem:
        _tell(path.parent, problem.strerror or str(problem))


@cache
def _tell(folder: Path, reason: str) -> None:
    """Say it once, however many kernels it meets."""
    message = f"{folder}: machine code cannot be kept there ({reason}), so that every start compiles anew"
    warnings.warn(f"{message}; QCLI_CACHE_DIR chooses another folder", RuntimeWarning, stacklevel=2)


def _read(kernel: Kernel) -> tuple[str, bytes] | None:
    """A kernel's symbol and object file, if they are there and whole."""
    try:
        data = _path(kernel).read_bytes()
    except OSError:
        return None
    content = data[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != data[:_DIGEST_BYTES]:
        return None
    symbol, _, object_file = content.partition(b"\0")
    return symbol.decode(), object_file


def _compile_here(kernel: Kernel) -> tuple[str, bytes]:
    from quant import compiler

    code = compiler.machine_code(kernel)
    save(kernel, *code)
    return code


def _compile_beside(kernels: Sequence[Kernel], compilers: int) -> Iterator[int]:
    """Compile in processes of their own; yields how many are done. What they leave out is for the caller to do."""
    environment = {**os.environ, "QCLI_CACHE_DIR": str(root()), "NUMBA_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-P", "-m", "quant.compiler"]
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    names = [kernel.name for kernel in kernels]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for first in range(compilers):
            running.append(subprocess.Popen([*command, *names[first::compilers]], env=environment, **quiet))
        while any(process.poll() is None for process in running):
            yield sum(os.path.exists(_path(kernel)) for kernel in kernels)
            time.sleep(_POLL_SECONDS)
    except OSError:  # no such interpreter, as in a frozen program
        return
    finally:
        for process in running:
            process.kill()
            process.wait()


@cache
def _engine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name, address in _math_functions():
        llvm.add_symbol(name, address)
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu.name(), features=cpu.features(), jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _math_functions() -> Iterator[tuple[str, int]]:
    """The functions of the C library that kernels may call."""
    names = {"linux": "libm.so.6", "win32": "ucrtbase.dll"}.get(sys.platform)
    try:
        library = ctypes.CDLL(names)
    except OSError:  # musl keeps them in its only library
        library = ctypes.CDLL(None)
    for name in ("exp", "expf", "log", "log1p", "log1pf", "sin", "cos", "sincos"):
        if found := getattr(library, name, None):
            yield name, ctypes.cast(found, ctypes.c_void_p).value or 0


def _path(kernel: Kernel) -> Path:
    return folder() / f"{kernel.name}-{sources.digest(kernel.body.__module__)}.o"


@cache
def folder() -> Path:
    """The folder for this compiler and this processor."""
    tools = f"{version('numba')} {version('llvmlite')} {sys.version_info[:2]}"
    mine = Path("kernels") / hashlib.sha256(f"{tools} {cpu.name()} {cpu.features()}".encode()).hexdigest()[:16]
    for place in (root, _spare):
        with suppress(OSError):
            chosen = place() / mine
            chosen.mkdir(parents=True, exist_ok=True)
            return chosen
    return root() / mine  # which does not come to be: nothing can be kept


def _spare() -> Path:
    """For a home that is read-only: this user's temporary folder, and nobody else's, as what is in it is run."""
    user = getattr(os, "getuid", lambda: None)()
    mine = Path(tempfile.gettempdir()) / f"qcli-{'qcli' if user is None else user}"
    mine.mkdir(exist_ok=True, mode=0o700)
    if user is not None and mine.lstat().st_uid != user:
        raise PermissionError(f"{mine} is somebody else's")
    return mine


def root() -> Path:
    """The folder for what may be lost: machine code, and what experts were asked for."""
    if chosen := os.environ.get("QCLI_CACHE_DIR"):
        return Path(chosen)
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "qcli" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "qcli"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "qcli"


def _remove_unused(path: Path, name: str) -> None:
    """Delete a kernel's code for other sources, if it is older than a month."""
    oldest = time.time() - _UNUSED_DAYS * 86_400
    for other in path.parent.glob(f"{name}-*.o"):
        if other != path and other.stat().st_mtime < oldest:
            other.unlink(missing_ok=True)
