"""Compiled kernels are kept in the user's folder for caches: whoever imports this module has them kept there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qcli.errors import QcliError, UsageError
from qcli.host import address_space, folders, threads
from quant import cpu, kernel_cache
from quant.every_kernel import every_kernel
from quant.jit import Kernel
from quant.prepare import compile_missing, is_missing
from quant.prepare import prepare as compile_and_load

kernel_cache.configure(folders.cache, folders.spare_cache, hint=f"{folders.CHOOSES_CACHE} chooses another folder")


def prepare(
    kernels: Sequence[Kernel],
    progress: Callable[[str, float], None] | None = None,
    later: Sequence[Sequence[Kernel]] = (),
) -> None:
    """Have every kernel compiled and loaded, so that no token waits for the compiler; progress(stage, fraction).

    later: groups of kernels that are compiled beside what comes next, see `quant.prepare`.
    """
    check_processor()
    if any(is_missing(kernel) for group in (kernels, *later) for kernel in group):
        address_space.check_before_compiling()
    told = (lambda fraction: progress("compiling kernels (once)", fraction)) if progress else None
    compile_and_load(kernels, told, threads.processors, later)


def check_processor() -> None:
    """Raise QcliError if no kernel can run on this processor, UsageError if none can on the one that was chosen."""
    if problem := cpu.wrongly_chosen():
        raise UsageError(problem, "leave out NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, or choose another")
    if lacking := cpu.missing():
        raise QcliError(f"this processor ({cpu.name()}) lacks {lacking}", "use a machine from 2013 or later")


def compile_all(progress: Callable[[str, float], None]) -> tuple[int, int]:
    """Compile every kernel that there is, for models of any type; how many were missing, and how many there are."""
    check_processor()
    address_space.check_before_compiling()
    every = every_kernel()
    missing = compile_missing(every, lambda fraction: progress("", fraction), threads.processors)
    return len([kernel for kernel in missing if kernel_cache.has(kernel)]), len(every)
