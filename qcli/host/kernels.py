"""Compiled kernels are kept in the user's folder for caches: whoever imports this module has them kept there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qcli.host import folders, threads
from quant import kernel_cache
from quant.jit import Kernel
from quant.prepare import prepare as compile_and_load

kernel_cache.configure(folders.cache, folders.spare_cache, hint=f"{folders.CHOOSES_CACHE} chooses another folder")


def prepare(kernels: Sequence[Kernel], progress: Callable[[str, float], None] | None = None) -> None:
    """Have every kernel compiled and loaded, so that no token waits for the compiler; progress(stage, fraction)."""
    told = (lambda fraction: progress("compiling kernels", fraction)) if progress else None
    compile_and_load(kernels, told, threads.processors())
