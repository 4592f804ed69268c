"""Making the objects that come with a package: `python -m quant.prebuild [TARGET …]`, by default for all of `TARGETS`.

Each target has a process of its own, as a process compiles for one processor: the same sources give the same bytes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from quant import compiler, cpu, kernel_cache, numba_environment, prebuilt
from quant.every_kernel import every_kernel
from quant.jit import Kernel

_ONE = "--one"


def write(place: Path, kernels: Sequence[Kernel]) -> int:
    """Compile kernels into a folder, made anew, for the processor that the environment chooses; how many bytes that are."""
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob("*.o"):
        old.unlink()
    n_bytes = 0
    for kernel in kernels:
        content = kernel_cache.packed(*compiler.machine_code(kernel))
        (place / kernel_cache.name_of(kernel)).write_bytes(content)
        n_bytes += len(content)
    return n_bytes


def _one(name: str) -> int:
    if cpu.dot_unit() != prebuilt.TARGETS[name].unit:
        raise ValueError(f"{name}: kernels would be compiled for {cpu.dot_unit()}")
    write(prebuilt.FOLDER / name, every_kernel())
    return 0


def _all(names: Sequence[str]) -> int:
    """The exit code."""
    code = 0
    for name in names or prebuilt.TARGETS:
        target = prebuilt.TARGETS[name]
        environment = numba_environment.choosing(target.name, target.more)
        command = [sys.executable, "-P", "-m", "quant.prebuild", _ONE, name]
        code |= subprocess.run(command, env=environment).returncode
    return code


if __name__ == "__main__":
    sys.exit(_one(sys.argv[2]) if sys.argv[1:2] == [_ONE] else _all(sys.argv[1:]))
