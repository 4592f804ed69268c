"""From machine code to an address: LLVM's loader takes object files as the kernel cache keeps them, 0.3 ms each."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from functools import cache
from threading import RLock
from typing import Any

import llvmlite.binding as llvm

from quant import cpu, kernel_cache, numba_environment
from quant.declarations import CFunction

_LOADING = RLock()  # the loader and the compiler are for one thread at a time, and the threads of a team begin together
_addresses: dict[CFunction, int] = {}


def address(function: CFunction) -> int:
    """The machine address of a function, whose code comes from the kernel cache, else from the compiler; from any thread."""
    with _LOADING:
        if function not in _addresses:
            _addresses[function] = _load(function)
        return _addresses[function]


def _load(function: CFunction) -> int:
    symbol, object_file = kernel_cache.read(function) or _compile(function)
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(object_file))
    engine.finalize_object()
    return int(engine.get_function_address(symbol))


def _compile(function: CFunction) -> tuple[str, bytes]:
    with numba_environment.set_aside():
        from quant import compiler  # and Numba, which takes half a second: only where something must be compiled

    code = compiler.machine_code(function)
    kernel_cache.save(function, *code)
    return code


@cache
def _engine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name, its_address in _math_functions():
        llvm.add_symbol(name, its_address)
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu.name(), features=cpu.features(), jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _math_functions() -> Iterator[tuple[str, int]]:
    """Names and addresses of the functions of the C library that kernels may call."""
    names = {"linux": "libm.so.6", "win32": "ucrtbase.dll"}.get(sys.platform)
    try:
        library = ctypes.CDLL(names)
    except OSError:  # musl keeps them in its only library
        library = ctypes.CDLL(None)
    for name in ("exp", "expf", "log", "log1p", "log1pf", "sin", "cos", "sincos"):
        if found := getattr(library, name, None):
            yield name, ctypes.cast(found, ctypes.c_void_p).value or 0
