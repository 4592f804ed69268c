"""Compile kernels on this machine for an AArch64 that is not it, into a kernel cache: what an emulated compiler takes hours for.

    python benchmarks/cross_kernels.py CACHE FEATURES FILE...

CACHE is QCLI_CACHE_DIR of the other machine, FEATURES what quant.cpu.features() is there, where the processor is `generic`.
A FILE ends in .py, a test module, whose own kernels are compiled, and those of helpers and modules of quant that it imports; or
it holds the names of kernels, a line each. The compiler is this machine's Numba and LLVM, told to be on another one: the
versions must be the same there, or the kernels will not be found. Nothing of what is compiled is run here.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import llvmlite.binding as llvm

TRIPLE: Final = "aarch64-unknown-linux-gnu"
HELPERS: Final = Path(__file__).resolve().parents[1] / "tests/helpers"


def be_aarch64(features: str) -> None:
    """From now on have Numba compile for an AArch64 under Linux; before the first import of quant."""
    os.environ.update(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=features)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    platform.machine = lambda: "aarch64"
    llvm.get_process_triple = llvm.get_default_triple = lambda: TRIPLE
    target = llvm.Target.from_triple(TRIPLE)
    llvm.Target.from_default_triple = classmethod(lambda _: target)
    from numba.core import codegen

    # Numba would load what it has compiled: it is kept from that, and objects come from LLVM instead of its loader.
    codegen.JITCodeLibrary.get_pointer_to_function = _no_address
    codegen.JITCodeLibrary._finalize_specific = lambda _: None
    codegen.JITCPUCodegen.set_env = lambda *_: None
    codegen.CPUCodeLibrary._get_compiled_object = _object_of


def _no_address(library: Any, _name: str) -> int:
    library._ensure_finalized()
    return 0


def _object_of(library: Any) -> bytes:
    library._ensure_finalized()
    return library._codegen._tm.emit_object(library._final_module)


def named(files: list[str]) -> Iterator[Any]:
    """The kernels that files name, or tests use."""
    from quant.jit import Kernel

    sys.path[:0] = [str(HELPERS)]
    for file in files:
        if file.endswith(".py"):
            sys.path.insert(0, str(Path(file).parent))
            importlib.import_module(Path(file).stem)
        else:
            for name in Path(file).read_text().split():
                module, _, attribute = name.rpartition(".")
                yield getattr(importlib.import_module(module), attribute)
    tests = {str(Path(file).resolve().parent) for file in files if file.endswith(".py")}
    for name, module in list(sys.modules.items()) if tests else []:
        is_test = str(getattr(module, "__file__", "")).startswith((*tests, str(HELPERS)))
        if is_test or name.startswith("quant."):
            yield from (value for value in vars(module).values() if isinstance(value, Kernel) and value.module == name)


def main(cache: str, features: str, *files: str) -> None:
    be_aarch64(features)
    from quant import compiler, kernel_cache

    kernels, made = list(named(list(files))), 0
    kernel_cache.configure(lambda: Path(cache))  # after the imports, as an application configures it, too
    for kernel in kernels:
        if not kernel_cache.has(kernel):
            try:
                kernel_cache.save(kernel, *compiler.machine_code(kernel))
                made += 1
            except Exception as problem:  # compiled there, if it is asked for
                print(f"{kernel.name}: {problem}", file=sys.stderr)
    print(f"{made} kernels compiled for {features}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
