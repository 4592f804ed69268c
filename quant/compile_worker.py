"""A process that compiles kernels: `python -m quant.compile_worker FOLDER` reads their names, and answers each with a line."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from quant import compiler, kernel_cache
from quant.jit import Kernel


def compile_into(folder: Path, names: Iterable[str]) -> None:
    """Compile kernels, given by module and name, into the kernel cache below a folder, unless another process has done so.

    After each a line goes to standard output.
    """
    kernel_cache.configure(lambda: folder)
    for name in names:
        module, _, attribute = name.strip().rpartition(".")
        kernel: Kernel = getattr(importlib.import_module(module), attribute)
        if not kernel_cache.has(kernel):
            kernel_cache.save(kernel, *compiler.machine_code(kernel))
        os.write(1, b"\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.freeze()  # what Numba consists of is looked through no more,
    gc.set_threshold(20_000)  # and the rest rarely: 2 % of the time instead of 6
    compile_into(Path(sys.argv[1]), sys.stdin)
