"""Many kernels made ready at once: those that the kernel cache lacks are compiled by several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from quant import kernel_cache, numba_environment
from quant.jit import Kernel

_MOST_COMPILERS = 8
_WORTH_A_PROCESS = 4  # kernels; starting a compiler takes as long as compiling one
_POLL_SECONDS = 0.05


def prepare(
    kernels: Sequence[Kernel], progress: Callable[[float], None] | None = None, processors: int | None = None
) -> None:
    """Compile what is missing, by at most so many processes, and load every kernel; progress(fraction compiled)."""
    missing = compile_missing(kernels, progress, processors)
    for done, kernel in enumerate(missing):
        if progress and not kernel_cache.has(kernel):
            progress(done / len(missing))
        _ = (
            kernel.address
        )  # loaded, or compiled here; the kernel keeps it, so a cache that cannot be written costs once


def compile_missing(
    kernels: Sequence[Kernel], progress: Callable[[float], None] | None = None, processors: int | None = None
) -> list[Kernel]:
    """Have processes compile the kernels that the cache lacks, where that is quicker; gives those that it lacked."""
    missing = [kernel for kernel in kernels if not (kernel.is_loaded or kernel_cache.has(kernel))]
    compilers = min(processors or _processors(), _MOST_COMPILERS, len(missing) // _WORTH_A_PROCESS)
    if compilers > 1 and kernel_cache.is_writable():
        for done in _compile_beside(missing, compilers):
            if progress:
                progress(done / len(missing))
    return missing


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compile_beside(kernels: Sequence[Kernel], compilers: int) -> Iterator[int]:
    """Compile in processes of their own; yields how many are done. What they leave out is for the caller to do."""
    environment = {**numba_environment.without(os.environ), "NUMBA_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-P", "-m", "quant.compile_worker", str(kernel_cache.root())]
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running: list[subprocess.Popen[bytes]] = []
    try:
        for share in _shares(kernels, compilers):
            names = [kernel.name for kernel in share]
            running.append(subprocess.Popen([*command, *names], env=environment, **quiet))
        missing = list(kernels)
        while any(process.poll() is None for process in running):
            missing = [kernel for kernel in missing if not kernel_cache.has(kernel)]
            yield len(kernels) - len(missing)
            time.sleep(_POLL_SECONDS)
    except OSError:  # no such interpreter, as in a frozen program
        return
    finally:
        for process in running:
            process.kill()
            process.wait()


def _shares(kernels: Sequence[Kernel], compilers: int) -> list[list[Kernel]]:
    """About as many kernels for each process; those of one module stay together, as they share helpers."""
    modules: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        modules.setdefault(kernel.module, []).append(kernel)
    shares: list[list[Kernel]] = [[] for _ in range(compilers)]
    for module in sorted(modules.values(), key=len, reverse=True):
        min(shares, key=len).extend(module)
    return [share for share in shares if share]
