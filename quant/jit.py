"""Declaring compiled code without paying for the compiler.

    @intrinsic   one operation of LLVM, as a rule: types of the operands -> type of the result, and its code
    @inline      a helper that is merged into the kernels that call it
    @kernel      a record's kernel in a plan: f(rank, size, operand, …), every argument an address or an integer
    @function    a C function with other arguments, called by its address from kernels, or from Python

Nothing is compiled by a declaration. A kernel's machine code is loaded when its address is first asked for
(`quant.loader`): from the kernel cache, else from the compiler, and only then is Numba imported. So a command that has
run before starts in the time that its weights take to map.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cached_property
from typing import Any

from quant import loader
from quant.declarations import CFunction, Inline, Intrinsic

_C_TYPES: dict[str, Any] = {"p": ctypes.c_int64, "f": ctypes.c_float, "d": ctypes.c_double}


class Kernel(CFunction):
    """A compiled C function, known by its address; compiled, or loaded from the kernel cache, when first asked for."""

    @cached_property
    def address(self) -> int:
        """The machine address of the function."""
        return loader.address(self)

    @property
    def is_loaded(self) -> bool:
        """Whether its code is in memory already."""
        return "address" in vars(self)

    @cached_property
    def _callable(self) -> Any:
        result = ctypes.c_int64 if self.returns else None
        return ctypes.CFUNCTYPE(result, *[_C_TYPES[letter] for letter in self.parameters])(self.address)

    def __call__(self, *arguments: float) -> int:
        """Call the function from Python, without the GIL; what it returns (of one that returns nothing, None)."""
        result: int = self._callable(*arguments)
        return result


def intrinsic(rule: Callable[..., Any]) -> Intrinsic:
    """Declare an operation of LLVM."""
    return Intrinsic(rule)


def inline(body: Callable[..., Any]) -> Any:
    """Declare a helper that is always merged into what calls it."""
    return Inline(body)


def kernel(body: Callable[..., None]) -> Kernel:
    """Declare a kernel of a plan."""
    return Kernel(body, "p" * body.__code__.co_argcount, returns=False)


def function(parameters: str, *, returns: bool = False) -> Callable[[Callable[..., Any]], Kernel]:
    """Declare a function of int64 ("p"), float32 ("f") and float64 ("d") arguments that returns an int64 or nothing."""
    return lambda body: Kernel(body, parameters, returns)
