"""Many kernels made ready at once: those that the kernel cache lacks are compiled by processes, in order of need."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from quant import kernel_cache
from quant.compilers import COMPILERS
from quant.jit import Kernel

_MOST_COMPILERS = 8
_WORTH_A_PROCESS = 4  # kernels; starting a compiler takes as long as compiling one
_POLL_SECONDS = 0.05


def prepare(
    kernels: Sequence[Kernel],
    progress: Callable[[float], None] | None = None,
    processors: Callable[[], int] | None = None,
    later: Sequence[Sequence[Kernel]] = (),
) -> None:
    """Compile what is missing, by at most so many processes, and load every kernel; progress(fraction compiled).

    processors: is asked for that number if something is missing, by default the processors that this process may run on.
    later: kernels that will be needed afterwards, first those that are needed first; they are compiled beside what is done
    next, and `prepare` will find them, or wait for them.
    """
    missing = compile_missing(kernels, progress, processors, later)
    for done, kernel in enumerate(missing):
        if progress and not kernel_cache.has(kernel):
            progress(done / len(missing))
        # loaded, or compiled here; the kernel keeps it, so a cache that cannot be written costs once
        _ = kernel.address


def compile_missing(
    kernels: Sequence[Kernel],
    progress: Callable[[float], None] | None = None,
    processors: Callable[[], int] | None = None,
    later: Sequence[Sequence[Kernel]] = (),
) -> list[Kernel]:
    """Have processes compile the kernels that the cache lacks, where that is quicker; gives those that it lacked."""
    missing, after = _missing(kernels), [lacking for group in later if (lacking := _missing(group))]
    if (missing or after) and kernel_cache.is_writable():
        count = len(missing) + sum(map(len, after))
        compilers = min((processors or _processors)(), _MOST_COMPILERS, count // _WORTH_A_PROCESS)
        if compilers > 1 or after:
            COMPILERS.add([missing, *after], max(1, compilers))
        _wait(missing, progress)
    return missing


def are_coming(kernels: Sequence[Kernel]) -> bool:
    """Whether some of the kernels are being compiled beside, so that who can do without them for a while should."""
    return bool(COMPILERS.pending(kernels))


def _wait(missing: Sequence[Kernel], progress: Callable[[float], None] | None) -> None:
    """Until none of them is being compiled beside, or about to be."""
    COMPILERS.hurry(missing)
    try:
        while left := COMPILERS.pending(missing):
            if progress:
                progress(1 - len(left) / len(missing))
            time.sleep(_POLL_SECONDS)
    except BaseException:
        COMPILERS.stop()
        raise


def _missing(kernels: Sequence[Kernel]) -> list[Kernel]:
    return [kernel for kernel in kernels if is_missing(kernel)]


def is_missing(kernel: Kernel) -> bool:
    """Whether a kernel is neither loaded nor in the cache, so that it has to be compiled."""
    return not (kernel.is_loaded or kernel_cache.has(kernel))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
