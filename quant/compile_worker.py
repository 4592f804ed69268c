"""A process that compiles some of many kernels: `python -m quant.compile_worker FOLDER NAME …` fills the kernel cache."""

from __future__ import annotations

import importlib
import signal
import sys
from pathlib import Path

from quant import compiler, kernel_cache
from quant.jit import Kernel


def compile_into(folder: Path, names: list[str]) -> None:
    """Compile kernels, given by module and name, into the kernel cache below a folder."""
    kernel_cache.configure(lambda: folder)
    for name in names:
        module, _, attribute = name.rpartition(".")
        kernel: Kernel = getattr(importlib.import_module(module), attribute)
        kernel_cache.save(kernel, *compiler.machine_code(kernel))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    compile_into(Path(sys.argv[1]), sys.argv[2:])
